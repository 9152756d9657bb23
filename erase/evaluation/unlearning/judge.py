"""All that can be said of one unlearned model, each number with its unit and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from erase.errors import UserError, refuse
from erase.evaluation.unlearning.accuracy import accuracies
from erase.evaluation.unlearning.distances import (
    average_gap,
    differences,
    js_distance,
    js_divergence,
    kl_divergence,
    tow,
)
from erase.evaluation.unlearning.membership import Attack, entropy_attack, loss_attack, svc_attack
from erase.evaluation.unlearning.outputs import FEATURES, Parts, required

Judged = dict[str, dict[str, Any]]
"""By key (see ``MEASURES``): value, unit, meaning and the value that is wanted; of an attack its feature, too."""
AS_RETRAINING = "as retraining"


@dataclass(frozen=True)
class Measure:
    """What a number is."""

    name: str
    unit: str
    meaning: str
    wanted: str = AS_RETRAINING


MEASURES: dict[str, Measure] = {
    "UA": Measure("UA", "%", "forget set misclassified: 100 - accuracy"),
    "RA": Measure("RA", "%", "accuracy on what is retained"),
    "VA": Measure("VA", "%", "accuracy on the validation set, which choices are made by"),
    "TA": Measure("TA", "%", "accuracy on the test set, which chose nothing; without classes that were forgotten"),
    "TA_forgotten": Measure("TA, forgotten", "%", "accuracy on the test pictures of the forgotten classes"),
    "MIA": Measure("MIA", "%", "membership inference on the confidence, SVC"),
    "MIA_correctness": Measure("MIA, correctness", "%", "the same on whether the label is predicted"),
    "MIA_entropy": Measure("MIA, entropy", "%", "the same on the entropy"),
    "MIA_m_entropy": Measure("MIA, modified entropy", "%", "the same on the modified entropy"),
    "MIA_probabilities": Measure("MIA, probabilities", "%", "the same on all probabilities"),
    "MIA_entropy_logistic": Measure("MIA, entropy, logistic", "%", "membership inference on the entropy, logistic"),
    "MIA_loss": Measure("MIA, loss", "%", "membership inference on the loss, forget against test, logistic"),
    "dUA": Measure("UA - UA*", "points", "difference to retraining", "0"),
    "dRA": Measure("RA - RA*", "points", "difference to retraining", "0"),
    "dTA": Measure("TA - TA*", "points", "difference to retraining", "0"),
    "dMIA": Measure("MIA - MIA*", "points", "difference to retraining", "0"),
    "Avg_gap": Measure("Avg. Gap", "points", "mean of the four absolute differences", "0"),
    "ToW": Measure("ToW", "", "tug of war: product of 1 - |difference| of UA, RA and TA", "1"),
    "JS": Measure("JS distance", "", "Jensen-Shannon distance to retraining on the forget set, base 2", "0"),
    "JS_nats": Measure("JS divergence", "nats", "Jensen-Shannon divergence to retraining on the forget set", "0"),
    "KL": Measure("KL", "nats", "KL(retrained || unlearned) on the forget set", "0"),
    "RTE": Measure("RTE", "s", "run time of the unlearning", "low"),
}
"""Every key of a judgement, in the order of the report."""


def judge(parts: Parts, reference: Parts | None = None, features: Sequence[str] = tuple(FEATURES)) -> Judged:
    """One model's scores; with the retrained model's outputs also how far it is from retraining.

    Args:
        parts: Its outputs on "forget", "retain" and "test"; "validation" and "test_forgotten" if there are any.
        reference: The retrained model's outputs on the same parts.
        features: What SalUn's SVC looks at; "confidence" is always among them. Each costs a fit.
    """
    refuse(f"features: found {name!r}; allowed: {', '.join(FEATURES)}" for name in features if name not in FEATURES)
    required(parts, "forget", "retain", "test")
    found = {name: measure(name, value) for name, value in accuracies(parts).items()}
    for feature in dict.fromkeys(("confidence", *features)):
        key = "MIA" if feature == "confidence" else f"MIA_{feature}"
        found[key] = _attacked(key, partial(svc_attack, parts, feature))
    found["MIA_entropy_logistic"] = _attacked("MIA_entropy_logistic", partial(entropy_attack, parts))
    found["MIA_loss"] = _attacked("MIA_loss", partial(loss_attack, parts))
    if reference is not None:
        found |= {name: measure(name, value) for name, value in _compared(found, parts, reference).items()}
    return {name: found[name] for name in MEASURES if name in found}


def measure(key: str, value: float | None, **more: Any) -> dict[str, Any]:
    """A number with its identity; ``measure("RTE", seconds)`` is what the caller adds."""
    identity = MEASURES[key]
    return {"value": value, "unit": identity.unit, "meaning": identity.meaning, "wanted": identity.wanted, **more}


def values(judged: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The bare numbers of what could be measured."""
    return {key: float(entry["value"]) for key, entry in judged.items() if entry["value"] is not None}


def _attacked(key: str, attack: Callable[[], Attack]) -> dict[str, Any]:
    """An attack's score and identity; or no score, and why."""
    try:
        identity = attack().as_dict()
    except UserError as error:
        return measure(key, None, why=str(error))
    return measure(key, identity.pop("score"), **identity)


def _compared(found: Judged, parts: Parts, reference: Parts) -> dict[str, float]:
    own = values(found)
    other = accuracies(reference) | {"MIA": svc_attack(reference).score}
    forget, retrained = required(parts, "forget")[0], required(reference, "forget")[0]
    return {
        **{f"d{name}": difference for name, difference in differences(own, other).items()},
        "Avg_gap": average_gap(own, other),
        "ToW": tow(own, other),
        "JS": js_distance(forget, retrained),
        "JS_nats": js_divergence(forget, retrained),
        "KL": kl_divergence(forget, retrained),
    }
