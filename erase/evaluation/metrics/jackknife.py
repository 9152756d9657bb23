"""The interval of a distance between two sets: groups of images are left out in turn."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from erase.errors import UserError
from erase.evaluation.intervals import LEVEL, Interval

GROUPS = 10
"""Groups that are left out in turn: image i is in group i mod 10, of both sets at once."""


def group_of(n: int) -> Tensor:
    """``[n]``, the group of each image; images of one prompt and seed are in one group of both sets."""
    return torch.arange(n) % GROUPS


def jackknife(estimate: float, without: Callable[[int], float], n: int, lowest: float | None = None) -> Interval:
    """estimate ± t sqrt((G-1)/G sum_g (T_g - mean)^2), T_g the distance without group g (Shao & Tu 1995, 2.3).

    ``lowest`` is the least value the distance can have. The interval is of the distance at this number of images: FID
    and CMMD grow smaller the more images there are, KID does not.
    """
    left_out = [without(group) for group in range(GROUPS)]
    mean = sum(left_out) / GROUPS
    spread = math.sqrt((GROUPS - 1) / GROUPS * sum((value - mean) ** 2 for value in left_out))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, GROUPS - 1)) * spread
    low = estimate - reach if lowest is None else max(lowest, estimate - reach)
    return Interval(estimate, low, estimate + reach, n, LEVEL, f"jackknife over {GROUPS} groups")


def check_sets(before: Tensor, after: Tensor, needed: int, metric: str, why: str) -> None:
    """Refuses sets that are too small, not finite, or whose features have other widths."""
    if before.ndim != 2 or after.ndim != 2 or before.shape[1] != after.shape[1]:
        raise UserError(f"{metric}: features of {tuple(before.shape)} and {tuple(after.shape)} cannot be compared")
    fewest = min(len(before), len(after))
    if fewest < needed:
        raise UserError(f"{metric}: {fewest} images are too few: {needed} are needed in each set, {why}")
    if not (before.isfinite().all() and after.isfinite().all()):
        raise UserError(f"{metric}: a feature is not finite; the images or the extractor are damaged")
