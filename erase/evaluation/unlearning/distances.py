"""How far an unlearned model is from the retrained one: in its outputs, and in its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import rel_entr

from erase.evaluation.unlearning.outputs import Array, Outputs

COMPARED = ("UA", "RA", "TA", "MIA")
"""The scores that the average gap is over, each in percent."""


def js_divergences(outputs: Outputs, reference: Outputs) -> Array:
    """Of each sample in nats, ``[n]`` in [0, log 2]: (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2."""
    _check(outputs, reference)
    p, q = outputs.probabilities, reference.probabilities
    middle = (p + q) / 2
    found = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2
    return np.clip(found, 0, math.log(2))


def js_distance(outputs: Outputs, reference: Outputs) -> float:
    """The mean over samples of the Jensen-Shannon distance: sqrt of the divergence to base 2, in [0, 1]."""
    return float(np.sqrt(js_divergences(outputs, reference) / math.log(2)).mean())


def js_divergence(outputs: Outputs, reference: Outputs) -> float:
    """The mean over samples of the Jensen-Shannon divergence in nats, as SFRon reports it."""
    return float(js_divergences(outputs, reference).mean())


def kl_divergence(outputs: Outputs, reference: Outputs) -> float:
    """The mean over samples of KL(reference || outputs) in nats, 0 or more."""
    _check(outputs, reference)
    logs = reference.log_probabilities - outputs.log_probabilities
    return max(0.0, float((reference.probabilities * logs).sum(axis=1).mean()))


def differences(scores: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """Each compared score less the reference's, in points."""
    return {name: scores[name] - reference[name] for name in COMPARED}


def average_gap(scores: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """(|dUA| + |dRA| + |dTA| + |dMIA|) / 4 in points; 0 is retraining (Fan et al. 2024)."""
    return float(np.mean([abs(difference) for difference in differences(scores, reference).values()]))


def tow(scores: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Tug of war: (1 - |dUA|)(1 - |dRA|)(1 - |dTA|) of shares, in [0, 1]; 1 is retraining (Zhao et al. 2024)."""
    return math.prod(1 - abs(scores[name] - reference[name]) / 100 for name in ("UA", "RA", "TA"))


def _check(outputs: Outputs, reference: Outputs) -> None:
    if outputs.logits.shape != reference.logits.shape or not np.array_equal(outputs.labels, reference.labels):
        raise ValueError("both models must be asked about the same samples and have the same classes")
    if not len(outputs):
        raise ValueError("there are no samples to compare the models on")
