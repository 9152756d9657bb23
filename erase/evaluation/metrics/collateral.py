"""The collateral map: for a target, which of its neighbours were kept and which were lost with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

from torch import Tensor

from erase.errors import UserError, refuse
from erase.evaluation.intervals import LEVEL, TOO_FEW, Change, Interval, paired_difference, share_of
from erase.evaluation.metrics.labels import near

KEPT, LOST, UNDECIDED, ABSENT = "kept", "lost", "not shown", "not in the base"
TOO_FEW_TO_KEEP = "too few prompts to show it kept"
"""The verdicts, beside ``TOO_FEW``; see :func:`judge_concept` for the rule."""
MARGIN = 0.1
"""A drop of at most ten points in a hundred still counts as kept."""
PRESENT = 0.5
"""A concept that the base shows in fewer of its images than this cannot be said to be kept or lost."""


@dataclass(frozen=True)
class Neighbour:
    """A concept near the target."""

    concept: str
    cosine: float | None
    """Of its and the target's text features; ``None`` if it was only listed by the user."""
    listed: bool = False
    """Whether the user named it."""


@dataclass(frozen=True)
class Fate:
    """One cell of the map: what became of a concept while the target was erased."""

    target: str
    concept: str
    cosine: float | None
    listed: bool
    before: Interval
    """The share of its images in which it is seen."""
    after: Interval
    change: Change
    verdict: str
    images: int
    """Of either side; the intervals' ``n`` is its prompts where these have several."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = {key: asdict(self)[key] for key in ("target", "concept", "cosine", "listed")}
        sides = {"before": self.before.as_dict(), "after": self.after.as_dict(), "change": self.change.as_dict()}
        return plain | sides | {"images": self.images, "verdict": self.verdict}


def nearest_concepts(
    target: str,
    concepts: Sequence[str],
    read: Callable[[Sequence[str]], Tensor],
    count: int,
    template: str = "a photo of {concept}",
) -> list[Neighbour]:
    """The ``count`` concepts whose text features have the largest cosine with the target's, nearest first.

    ``read`` gives ``[n, d]`` unit features of prompts, such as :meth:`ClipModel.read`. Equal cosines keep the order
    of ``concepts``; the target is left out.
    """
    others = [concept for concept in dict.fromkeys(concepts) if concept != target]
    if not others or count < 1:
        raise UserError(f"collateral: {len(others)} concepts beside {target!r} and a count of {count}; give 1 at least")
    if "{concept}" not in template:
        raise UserError(f"collateral: template {template!r} must hold {{concept}}")
    features = read([template.replace("{concept}", word) for word in (target, *others)]).double()
    cosines = (features[1:] @ features[0]).tolist()
    ranked = sorted(range(len(others)), key=lambda index: -cosines[index])
    return [Neighbour(others[index], cosines[index]) for index in ranked[:count]]


def with_listed(neighbours: Sequence[Neighbour], listed: Sequence[str], known: Sequence[str]) -> list[Neighbour]:
    """The nearest and, after them, the user's own; a word that is not among the known concepts is refused."""
    refuse(f"collateral: {word!r} is not a known concept; {near(word, known)}" for word in listed if word not in known)
    found = [replace(neighbour, listed=neighbour.concept in listed) for neighbour in neighbours]
    there = {neighbour.concept for neighbour in found}
    return found + [Neighbour(word, None, True) for word in dict.fromkeys(listed) if word not in there]


def judge_concept(before: Interval, change: Change) -> str:
    """What became of a concept.

    "too few images" below the number that a paired difference needs; "not in the base" if the base's interval lies
    below one half: what was not there cannot be kept. Else "kept" if the difference's interval lies above a drop of
    ``MARGIN`` (non-inferiority), "lost" if it lies below zero, and "not shown" if the images allow neither; or, where
    no outcome of so few could have been called kept, "too few prompts to show it kept".
    """
    if change.verdict == TOO_FEW:
        return TOO_FEW
    if before.high < PRESENT:
        return ABSENT
    if change.difference.low > -MARGIN:
        return KEPT
    if change.difference.high < 0:
        return LOST
    return UNDECIDED if change.difference.n >= needed_to_keep(change.difference.level) else TOO_FEW_TO_KEEP


def needed_to_keep(level: float) -> int:
    """The fewest prompts, or images of a prompt each, of which a neighbour that lost nothing at all is called kept.

    Of n that are all right before and after, the difference's interval begins at -z^2 / (n + z^2): n > 9 z^2 for a
    margin of 0.1. At 95 % over five neighbours that is 60.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    return math.floor(z * z * (1 - MARGIN) / MARGIN) + 1


def collateral_map(
    target: str,
    neighbours: Sequence[Neighbour],
    before: Mapping[str, Sequence[bool]],
    after: Mapping[str, Sequence[bool]],
    prompts: Mapping[str, Sequence[Hashable]] | None = None,
    level: float = LEVEL,
) -> list[Fate]:
    """A row of the map: each neighbour's accuracy before and after, over the same prompts and seeds.

    ``before`` and ``after`` say for each concept, image by image, whether it was seen as asked. With ``prompts`` (the
    prompt of each image) what counts is prompts, on both sides and in the difference. A row of m neighbours asks m
    questions, so each difference has the level 1 - (1 - level) / m. A neighbour without images is an error.
    """
    lacking = [n.concept for n in neighbours if not before.get(n.concept) or not after.get(n.concept)]
    refuse(f"collateral: no images of {concept!r}; add prompts for it, or leave it out" for concept in lacking)
    fates = []
    for neighbour in neighbours:
        concept = neighbour.concept
        then, now = before[concept], after[concept]
        clusters = None if prompts is None else prompts[concept]
        change = paired_difference(then, now, level, clusters=clusters, comparisons=len(neighbours))
        first, last = (share_of(side, clusters, level) for side in (then, now))
        fate = judge_concept(first, change)
        fates.append(Fate(target, concept, neighbour.cosine, neighbour.listed, first, last, change, fate, len(then)))
    return fates
