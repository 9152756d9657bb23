"""The methods of the unlearning study: each a shipped configuration, and the grid of four that it is tuned by."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erase.config import build, merge, read_yaml
from erase.training.unlearning_settings import UnlearningRun

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "classification"
OF_THE_SETTING = ("task", "data", "forget", "original", "model")
"""Keys of a configuration that say what is unlearned; the others say how."""


@dataclass(frozen=True)
class Setting:
    """What is forgotten of which data."""

    title: str
    config: str
    longer: float = 1.0
    """How many times the steps of the methods' configurations fit into a tenth of its retraining."""


SETTINGS = {
    "digits_random10": Setting("digits, 10 % random", "digits_random10"),
    "digits_class": Setting("digits, class 8", "digits_class"),
    "digits_flipped10": Setting("digits, 10 % flipped labels", "digits_flipped10"),
    "shapes_circle": Setting("drawings, circles", "shapes_circle"),
    "shapes_flipped10": Setting("drawings, 10 % flipped labels", "shapes_flipped10", 3.3),
}


@dataclass(frozen=True)
class Method:
    """A configuration, what is changed in it, and what is tried."""

    config: str
    rates: tuple[float, ...]
    keys: str | tuple[str, ...]
    """The other key that is tuned, or several together."""
    values: tuple[Any, ...]
    """What it is given; of several keys, a value for each."""
    changed: tuple[str, ...] = ()

    @property
    def grid(self) -> list[tuple[str, ...]]:
        """Four combinations of overrides."""
        keys = (self.keys,) if isinstance(self.keys, str) else self.keys
        tried = self.values if len(keys) > 1 else [(value,) for value in self.values]
        others = [tuple(f"{key}={value}" for key, value in zip(keys, given, strict=True)) for given in tried]
        return [(f"learning_rate={rate}", *other) for rate, other in itertools.product(self.rates, others)]


STEPS, WEIGHT, RATIO = "max_train_steps", "forget_weight", "update.alpha.ratio"
WEIGHTS, RATES, LOW_RATES = (0.1, 0.5), (0.01, 0.03), (0.003, 0.01)
RANDOM, NEAREST = "forget_loss={name: random_label}", "forget_loss={name: boundary_shrink}"


def lur(mode: str, weights: tuple[float, float], *changed: str, config: str = "digits_random10") -> Method:
    """LUR, its weight and alpha tuned together: the heavier, the further.

    ``alternating`` and ``first_order`` take alpha from a displacement, which no step need measure.
    """
    measured = mode in ("chained", "exact")
    alpha = "{name: correction}" if measured else "{name: displacement}"
    ratios = (0.3, 1.0) if measured else (1e-4, 5e-4)
    update = (f"update.mode={mode}", f"update.alpha={alpha}", "update.measure_every=0")
    rates = LOW_RATES if any(loss in changed for loss in (RANDOM, NEAREST)) else RATES
    return Method(config, rates, (WEIGHT, RATIO), tuple(zip(weights, ratios, strict=True)), (*update, *changed))


def with_labels(name: str, loss: str, weights: tuple[float, float], chained: int, others: int) -> dict[str, Method]:
    """The rows of a forget loss that teaches other labels; steps of rules with three evaluations, and with two."""
    steps = f"{STEPS}={others}"
    bargain = Method("digits_munba", RATES, "max_grad_norm", (0.3, 1.0), ("update={name: nash}", loss, steps))
    ahead = "{name: lur, mode: alternating, combine: nash, measure_every: 0, alpha: {name: displacement}}"
    return {
        f"lur chained, {name}": lur("chained", weights, loss, f"{STEPS}={chained}"),
        f"lur alternating, {name}": lur("alternating", weights, loss, steps),
        f"lur nash, {name}": replace(bargain, changed=(f"update={ahead}", loss, steps)),
        f"weighted_sum, {name}": Method(
            "digits_random10", LOW_RATES, WEIGHT, weights, ("update={name: weighted_sum}", loss, steps)
        ),  # what is LUR's, and what the loss's
        f"munba, {name}": bargain,
    }


METHODS: dict[str, Method] = {
    "finetune": Method("digits_finetune", (0.03, 0.1), STEPS, (15, 30)),
    "gradient_ascent": Method("digits_gradient_ascent", (1e-3, 1e-2), STEPS, (5, 15)),
    "neggrad_plus": Method("digits_neggrad_plus", (0.01, 0.03), WEIGHT, WEIGHTS),
    "random_label": Method("digits_random_label", (0.01, 0.03), "update.retain_steps", (2, 9)),
    "l1_sparse": Method("digits_l1_sparse", (0.03, 0.1), "retain_loss.gamma", (1e-5, 1e-4)),
    "boundary_shrink": Method("digits_boundary_shrink", (1e-3, 1e-2), STEPS, (5, 15)),
    "boundary_expand": Method("digits_boundary_expand", (1e-3, 1e-2), STEPS, (5, 15)),
    "bad_teacher": Method("digits_bad_teacher", (0.01, 0.03), WEIGHT, WEIGHTS),
    "scrub": Method("digits_scrub", (0.01, 0.03), "update.forget_until", (10, 30)),
    "influence_unlearning": Method("digits_influence_unlearning", (0.01,), "start.scale", (0.3, 1.0, 3.0, 10.0)),
    "selective_dampening": Method("digits_selective_dampening", (0.01,), "start.alpha", (2.0, 5.0, 10.0, 20.0)),
    "salun": Method("digits_salun", (0.01, 0.03), "update.retain_steps", (2, 9)),
    "scissorhands": Method("digits_scissorhands", (0.01, 0.03), WEIGHT, WEIGHTS),
    "sfron": Method("digits_sfron", (0.01, 0.03), WEIGHT, (1.0, 5.0)),
    "munba": Method("digits_munba", (0.01, 0.03), "max_grad_norm", (0.3, 1.0)),
    "lur chained": lur("chained", (0.1, 0.3)),
    "lur alternating": lur("alternating", (0.1, 0.3), f"{STEPS}=15"),
    "lur first_order": lur("first_order", (0.1, 0.3), f"{STEPS}=15"),
    "lur exact": lur("exact", (0.1, 0.3)),
    "lur chained, trim": lur("chained", (0.1, 0.3), config="digits_lur_trim"),
    **with_labels("random labels", RANDOM, (0.3, 1.0), chained=10, others=15),
    **with_labels("nearest labels", NEAREST, (0.2, 0.5), chained=7, others=10),
}
del METHODS["munba, random labels"]  # which is MUNBa
"""At most 30 gradient evaluations of a batch each, a tenth of retraining's 300, those of nearest labels included."""


def make_run(setting: Setting, method: Method, overrides: Sequence[str], seed: int, folder: Path) -> UnlearningRun:
    """The run of a method in a setting; seed and splits follow ``seed``."""
    what = {k: v for k, v in read_yaml(CONFIGS / f"{setting.config}.yaml").items() if k in OF_THE_SETTING}
    how = {k: v for k, v in read_yaml(CONFIGS / f"{method.config}.yaml").items() if k not in OF_THE_SETTING}
    own = [f"seed={seed}", f"split_seed={seed}", f"output_dir={folder}", "overwrite=true"]
    tree = merge({**how, **what}, [*method.changed, *overrides, *own])
    for block, key in (("", STEPS), ("update", "forget_until")):
        place = tree.get(block, {}) if block else tree
        if place.get(key):
            place[key] = round(setting.longer * place[key])
    return build(UnlearningRun, tree)
