"""The interval of a distance between two sets: groups of images are left out in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import torch
from scipy import stats
from torch import Tensor

from erase.errors import UserError
from erase.evaluation.intervals import LEVEL, Interval
from erase.randomness import generator

GROUPS = 10
"""Groups that are left out in turn; fewer where there are fewer prompts."""
Clusters = Sequence[Hashable] | None
"""The prompt of each image where prompts have several; ``None`` if each image stands for itself."""


def group_of(n: int, clusters: Clusters = None) -> Tensor:
    """``[n]``, the group of each image: dealt out by a fixed shuffle, all images of a cluster to one group.

    The order of the images says nothing of their group, and equal arguments give equal groups: two sets of the same
    prompts and seeds lose the same ones.
    """
    of: Sequence[Hashable] = range(n) if clusters is None else clusters
    number = {cluster: index for index, cluster in enumerate(dict.fromkeys(of))}
    dealt = torch.randperm(len(number), generator=generator(0, "jackknife")) % min(GROUPS, max(1, len(number)))
    return dealt[torch.tensor([number[cluster] for cluster in of], dtype=torch.long)]


def jackknife(
    estimate: float, without: Callable[[int], float], n: int, groups: int = GROUPS, lowest: float | None = None
) -> Interval:
    """estimate ± t sqrt((G-1)/G sum_g (T_g - mean)^2), T_g the distance without group g (Shao & Tu 1995, 2.3).

    ``lowest`` is the least value the distance can have. The interval is of the distance at this number of images: FID
    and CMMD grow smaller the more images there are, KID does not. Images of a single prompt have none.
    """
    least = -math.inf if lowest is None else lowest
    if groups < 2:
        return Interval(estimate, least, math.inf, n, LEVEL, "none: one prompt")
    left_out = [without(group) for group in range(groups)]
    mean = sum(left_out) / groups
    spread = math.sqrt((groups - 1) / groups * sum((value - mean) ** 2 for value in left_out))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, groups - 1)) * spread
    return Interval(
        estimate, max(least, estimate - reach), estimate + reach, n, LEVEL, f"jackknife over {groups} groups"
    )


def split_sets(
    before: Tensor, after: Tensor, paired: bool, clusters: Clusters, metric: str
) -> tuple[tuple[Tensor, Tensor], int]:
    """The group of each image of both sets, and how many groups there are; sets that are no pairs are refused."""
    n, m = len(before), len(after)
    if (paired or clusters is not None) and n != m:
        raise UserError(f"{metric}: {n} images before and {m} after are no pairs; make both from one prompt set")
    if clusters is not None and len(clusters) != n:
        raise UserError(f"{metric}: {n} images, but {len(clusters)} prompts of theirs; each image has one")
    groups = (group_of(n, clusters), group_of(m, clusters))
    return groups, 1 + max((int(of.max()) for of in groups if len(of)), default=0)


def check_sets(sets: Sequence[Tensor], groups: Sequence[Tensor], needed: int, left: int, metric: str, why: str) -> None:
    """Refuses sets that are too small, not finite, or whose features have other widths.

    ``needed`` images must be in each, and ``left`` must be left of each without its largest group.
    """
    before, after = sets
    if before.ndim != 2 or after.ndim != 2 or before.shape[1] != after.shape[1]:
        raise UserError(f"{metric}: features of {tuple(before.shape)} and {tuple(after.shape)} cannot be compared")
    for features, of in zip(sets, groups, strict=True):
        enough = max(needed, left + _largest(of))
        if len(features) < enough:
            raise UserError(f"{metric}: {len(features)} images are too few: {enough} are needed in each set, {why}")
    if not (before.isfinite().all() and after.isfinite().all()):
        raise UserError(f"{metric}: a feature is not finite; the images or the extractor are damaged")


def _largest(of: Tensor) -> int:
    """Images of the largest group; none where there is only one, which is never left out."""
    counts = of.bincount()
    return int(counts.max()) if len(counts) > 1 else 0
