"""Every update rule of the table, in every mode: what the tests go through that hold for all of them."""

from __future__ import annotations

from dataclasses import replace

from erase.protocols import UpdateRule
from erase.updates import (
    LUR,
    MGDA,
    AlternatingSteps,
    CAGrad,
    ForgetOnly,
    GradientProjection,
    Nash,
    PCGrad,
    RetainOnly,
    TorchJD,
    UPGrad,
    WeightedSum,
)
from erase.updates.alpha import AbsoluteAlpha, CorrectionAlpha
from tests.unit.updates.problems import HEADS, TAILS

ALPHA = AbsoluteAlpha(value=0.1)
SUM, PROJECTED = WeightedSum(), PCGrad()
LOOK_AHEAD: dict[str, tuple[LUR, int]] = {
    "chained": (LUR(mode="chained", alpha=ALPHA), 0),
    "exact": (LUR(mode="exact", alpha=ALPHA), 0),
    "first_order": (LUR(mode="first_order", alpha=ALPHA), HEADS),
    "first_order, measured": (LUR(mode="first_order", alpha=ALPHA, measure_every=1), HEADS),
    "heads": (LUR(mode="alternating", alpha=ALPHA), HEADS),
    "tails": (LUR(mode="alternating", alpha=ALPHA), TAILS),
    "alternating, measured": (LUR(mode="alternating", alpha=ALPHA, measure_every=1), HEADS),
    "chained, sought": (LUR(mode="chained", alpha=CorrectionAlpha()), 0),
    "alternating, sought": (LUR(mode="alternating", alpha=CorrectionAlpha()), 0),
}
RULES: dict[str, tuple[UpdateRule, int]] = {
    "weighted_sum": (SUM, 0),
    **{kind().name: (kind(), 0) for kind in (PCGrad, UPGrad, MGDA, CAGrad, Nash, GradientProjection)},
    "torchjd UPGrad": (TorchJD(), 0),
    "torchjd ConFIG": (TorchJD(aggregator="ConFIG"), 0),
    "alternating_steps to forget": (AlternatingSteps(), 0),
    "alternating_steps to retain": (AlternatingSteps(), 1),
    "alternating_steps of pcgrad": (AlternatingSteps(rule=PROJECTED), 2),
    "retain_only": (RetainOnly(), 1),
    "forget_only": (ForgetOnly(), 0),
    **LOOK_AHEAD,
    **{f"{name} pcgrad": (replace(rule, combine=PROJECTED), step) for name, (rule, step) in LOOK_AHEAD.items()},
}
"""Each rule, and the step that it is tried at."""
