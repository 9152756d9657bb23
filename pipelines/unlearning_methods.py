"""The methods of the unlearning study: each a shipped configuration, and the grid of four that it is tuned by."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
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
    second: str
    """The other key that is tuned."""
    values: tuple[Any, ...]
    changed: tuple[str, ...] = ()

    @property
    def grid(self) -> list[tuple[str, ...]]:
        """Four combinations of overrides."""
        pairs = itertools.product(self.rates, self.values)
        return [(f"learning_rate={rate}", f"{self.second}={value}") for rate, value in pairs]


STEPS, WEIGHT = "max_train_steps", "forget_weight"
WEIGHTS = (0.1, 0.5)
LUR_CONFIG = "digits_random10"
LUR_NASH = "update={name: lur, mode: alternating, combine: nash}"
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
    "lur chained": Method(LUR_CONFIG, (0.01, 0.03), WEIGHT, WEIGHTS),
    "lur alternating": Method(LUR_CONFIG, (0.01, 0.03), WEIGHT, WEIGHTS, ("update.mode=alternating", f"{STEPS}=15")),
    "lur first_order": Method(LUR_CONFIG, (0.01, 0.03), WEIGHT, WEIGHTS, ("update.mode=first_order", f"{STEPS}=15")),
    "lur exact": Method(LUR_CONFIG, (0.01, 0.03), WEIGHT, WEIGHTS, ("update.mode=exact",)),
    "lur chained, trim": Method("digits_lur_trim", (0.01, 0.03), WEIGHT, WEIGHTS),
    **{
        f"{rule}, {label}": Method(LUR_CONFIG, (0.003, 0.01), WEIGHT, weights, (*changed, f"forget_loss={loss}"))
        for rule, changed in (
            ("lur chained", ()),
            ("lur alternating", ("update.mode=alternating", f"{STEPS}=15")),
            ("weighted_sum", ("update={name: weighted_sum}", f"{STEPS}=15")),  # what is LUR's, and what the loss's
        )
        for label, loss, weights in (
            ("random labels", "{name: random_label}", (0.3, 1.0)),
            ("nearest labels", "{name: boundary_shrink}", (0.2, 0.5)),
        )
    },
    **{
        f"{rule}, {label}": Method(
            "digits_munba", (0.01, 0.03), "max_grad_norm", (0.3, 1.0), (update, f"forget_loss={loss}")
        )
        for rule, update, label, loss in (
            ("munba", "update={name: nash}", "nearest labels", "{name: boundary_shrink}"),
            ("lur nash", LUR_NASH, "random labels", "{name: random_label}"),
            ("lur nash", LUR_NASH, "nearest labels", "{name: boundary_shrink}"),
        )
    },  # the bargain makes the forget weight void; MUNBa's grid in its place
}
"""30 gradient evaluations of a batch each, a tenth of retraining's 300, whatever a method makes of them."""


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
