"""What of the step log is drawn, and in which figure."""

from __future__ import annotations

from dataclasses import dataclass

INK, FORGET, RETAIN, LUR = "#010203", "#010204", "#010205", "#010206"
"""Stand-ins in matplotlib's SVG for the page's colors, which differ by day and night."""


@dataclass(frozen=True)
class Curve:
    """One key of the log and how it is drawn."""

    key: str
    label: str
    color: str
    dashes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One figure of the page."""

    title: str
    note: str
    curves: tuple[Curve, ...]
    zero: bool = False
    """Whether a line marks zero, above and below which the curve means opposite things."""
    raw: bool = True
    """Whether the values themselves are drawn behind their running mean."""
    smooth: bool = True
    """Whether curves are running means; else they are the values, as of what is a mean already."""


STAGES = (("down", FORGET), ("mid", LUR), ("up", RETAIN))
KINDS = (("attention", ()), ("convolution", (5, 2)))


def by_block(key: str) -> tuple[Curve, ...]:
    """``KEY/BLOCK`` for each block of a UNet: its color the stage, its dashes the kind."""
    stages = [
        Curve(f"{key}/{stage}.{kind}", f"{stage}, {kind[:4]}.", color, dashes)
        for stage, color in STAGES
        for kind, dashes in KINDS
    ]
    return (*stages, Curve(f"{key}/other", "other", INK, (1, 1.5)))


def before_and_after(key: str) -> tuple[Curve, ...]:
    """What the probes saw at the weights before and after an update."""
    return Curve(f"{key}_before", "before", FORGET), Curve(f"{key}_after", "after", RETAIN, (5, 2))


PANELS = (
    Panel(
        "Losses",
        "Both objectives, each without its weight.",
        (Curve("forget_loss", "forget", FORGET), Curve("retain_loss", "retain", RETAIN, (5, 2))),
    ),
    Panel(
        "Norms of the two gradients",
        "Each where the update rule took it, the forget gradient's without its weight.",
        (Curve("forget_norm", "forget", FORGET), Curve("retain_norm", "retain", RETAIN, (5, 2))),
    ),
    Panel(
        "Norm of the forget gradient by block",
        "Where the model is moved to forget.",
        by_block("forget_norm"),
        raw=False,
    ),
    Panel("Norm of the retain gradient by block", "Where it is held.", by_block("retain_norm"), raw=False),
    Panel(
        "Cosine of the two gradients",
        "Below zero the objectives pull against each other; above zero a step serves both. Each gradient is where the "
        "update rule took it: with LUR one of them is at the look-ahead, so this does not compare with another rule's.",
        (Curve("cosine", "cosine", RETAIN),),
        zero=True,
    ),
    Panel(
        "Cosine by block",
        "The same for each stage of the UNet that moved, its attention and its convolution: where the conflict is.",
        by_block("cosine"),
        zero=True,
        raw=False,
    ),
    Panel(
        "Share of conflicting steps",
        "How many of the steps so far had that cosine below zero, as counted.",
        (Curve("conflict_share", "conflicting", RETAIN),),
        smooth=False,
    ),
    Panel(
        "Share of conflicting steps by block",
        "The same by each block's own cosine.",
        by_block("conflict_share"),
        smooth=False,
        raw=False,
    ),
    Panel(
        "Cosine before and after an update",
        "Both gradients of one step's batch at the same weights, whatever the update rule: here rules compare.",
        before_and_after("cosine"),
        zero=True,
    ),
    Panel(
        "Cosine before an update by block",
        "The same before the update, for each block.",
        by_block("cosine_before"),
        zero=True,
        raw=False,
    ),
    Panel(
        "Inner product before and after an update",
        "<g_f, g_r> of one step's batch, now and then: LUR works to raise it.",
        before_and_after("inner"),
        zero=True,
    ),
    Panel(
        "Inner product before an update by block",
        "The parts that its value before the update is the sum of.",
        by_block("inner_before"),
        zero=True,
        raw=False,
    ),
    Panel(
        "Inner product after an update by block",
        "The parts that its value after the update is the sum of.",
        by_block("inner_after"),
        zero=True,
        raw=False,
    ),
    Panel(
        "Look-ahead α of LUR",
        "How far ahead of a retain step the forget loss is measured.",
        (Curve("alpha", "α", LUR),),
    ),
    Panel(
        "Correction by LUR",
        "The known half of what LUR adds, relative to the sum of both gradients.",
        (Curve("correction", "correction", LUR),),
    ),
    Panel(
        "Correction by block",
        "The same in each block, relative to the sum of both gradients there.",
        by_block("correction"),
        raw=False,
    ),
)
