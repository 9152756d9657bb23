"""Update rules: two objectives in, one gradient out. Domain-free; the table is closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from erase.protocols import UpdateState
from erase.updates.alpha import AbsoluteAlpha
from erase.updates.alternating_steps import AlternatingSteps
from erase.updates.cagrad import CAGrad
from erase.updates.forget_only import ForgetOnly
from erase.updates.gradient_projection import GradientProjection
from erase.updates.lur import LUR
from erase.updates.mgda import MGDA
from erase.updates.nash import Nash
from erase.updates.pcgrad import PCGrad
from erase.updates.retain_only import RetainOnly
from erase.updates.torchjd_aggregator import TorchJD
from erase.updates.upgrad import UPGrad
from erase.updates.weighted_sum import WeightedSum

Update = (
    LUR
    | WeightedSum
    | PCGrad
    | UPGrad
    | MGDA
    | CAGrad
    | Nash
    | GradientProjection
    | AlternatingSteps
    | RetainOnly
    | ForgetOnly
    | TorchJD
)
UPDATES: dict[str, type[Update]] = {
    "lur": LUR,
    "weighted_sum": WeightedSum,
    "pcgrad": PCGrad,
    "upgrad": UPGrad,
    "mgda": MGDA,
    "cagrad": CAGrad,
    "nash": Nash,
    "gradient_projection": GradientProjection,
    "alternating_steps": AlternatingSteps,
    "retain_only": RetainOnly,
    "forget_only": ForgetOnly,
    "torchjd": TorchJD,
}


def rule_of(update: Update) -> Update:
    """What takes the step that forgets: of steps in turn, the rule that they follow, if they follow one."""
    return update.rule or update if isinstance(update, AlternatingSteps) else update


def key_of(update: Update) -> str:
    """The configuration's key of :func:`rule_of`."""
    return "update" if rule_of(update) is update else "update.rule"


def of_torchjd(update: Update) -> dict[str, TorchJD]:
    """TorchJD's aggregators in a rule, by their keys."""
    rule, key = rule_of(update), key_of(update)
    parts = {key: rule, f"{key}.combine": rule.combine if isinstance(rule, LUR) else None}
    return {f"{place}.aggregator": part for place, part in parts.items() if isinstance(part, TorchJD)}


def remembering(update: Update) -> dict[str, TorchJD]:
    """TorchJD's aggregators that carry something from step to step, by their keys; no checkpoint holds it."""
    return {place: each for place, each in of_torchjd(update).items() if hasattr(each.module, "reset")}


def is_held(update: Update, retain: float, forget: float) -> bool:
    """Whether a rule takes no step from two gradients of these norms; some, as MGDA, take none where one is 0.

    LUR's look-ahead moves off the point where a gradient vanishes, but along a retain gradient of 0 it goes nowhere.
    """
    if isinstance(update, AlternatingSteps):
        held = forget == 0 if update.rule is None else is_held(update.rule, retain, forget)
        return retain == 0 and (held or update.forget_until == 0)
    if isinstance(update, RetainOnly | ForgetOnly):
        return (retain if isinstance(update, RetainOnly) else forget) == 0
    if isinstance(update, LUR):
        looks = update.alpha != AbsoluteAlpha(value=0.0)
        goes = retain > 0 or (forget > 0 and update.mode != "first_order")
        return not (looks and goes) and is_held(update.combine, retain, forget)
    step = torch.tensor([forget])
    update.combine([torch.tensor([retain])], [step], UpdateState())
    return not step.any()


def label(update: Mapping[str, Any]) -> str:
    """A dumped rule's name, with those of the rules in it: "alternating_steps of lur with nash"."""
    rule, combine = update.get("rule"), update.get("combine") or {}
    second = combine.get("name", "weighted_sum")  # LUR's own sum goes without saying
    within = f" of {label(rule)}" if rule else ""
    return update["name"] + within + (f" with {second}" if second != "weighted_sum" else "")


__all__ = [
    "LUR",
    "MGDA",
    "UPDATES",
    "AlternatingSteps",
    "CAGrad",
    "ForgetOnly",
    "GradientProjection",
    "Nash",
    "PCGrad",
    "RetainOnly",
    "TorchJD",
    "UPGrad",
    "Update",
    "WeightedSum",
    "is_held",
    "key_of",
    "label",
    "of_torchjd",
    "remembering",
    "rule_of",
]
