"""The final score of the NeurIPS-2023 machine unlearning challenge, for three or more models of each kind.

Formulas: Triantafillou et al. 2024, "Are we making progress in unlearning?", and its published metric.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from erase.errors import UserError
from erase.evaluation.unlearning.outputs import Array

DELTA = 1e-5
CAP = 50.0
"""Of epsilon: perfect separation."""
PER_UNIT = 100
"""Thresholds in a unit of margin."""
BUFFER = 2.0
"""How far around a peaked distribution its two thresholds are looked for."""
PEAKED = 0.01
"""Ranges of a smaller ratio are told apart without looking."""
BUCKET = 0.5
ALIKE = 200
"""Samples that chance is taken of."""
FEWEST = 3
"""Models of each kind: of two, ceil(log(2 - 1)) = 0 leaves no bucket, and every score would be 0."""


@dataclass(frozen=True)
class ChallengeScore:
    """Forgetting quality and what it comes to with utility: higher is better, and no method comes near 1.

    Epsilons are the worst of many thresholds, so retraining scored against more retraining does not get 1 but
    ``chance``: that is what to compare with.
    """

    forgetting: float
    """F in [0, 1]: the mean over forgotten samples of 2^-bucket."""
    final: float
    """F x RA_u / RA_r x TA_u / TA_r; the challenge refused what took over a fifth of retraining's time."""
    epsilons: tuple[float, ...]
    """Of each forgotten sample, 0 to 50."""
    undecided: int
    """Samples at which every threshold was dropped; their epsilon is 0."""
    models: int
    chance: float
    """What as many Gaussian margins of either kind get where both are alike: about 0.4 of 3, 0.2 of 8 or more."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def challenge_score(
    unlearned: Array, retrained: Array, retain: tuple[float, float], test: tuple[float, float]
) -> ChallengeScore:
    """F x RA_u / RA_r x TA_u / TA_r.

    Args:
        unlearned: ``[m, n]`` margins log p_y - log(1 - p_y) of n forgotten samples under m unlearned models.
        retrained: ``[m, n]`` the same under retrained models.
        retain: Mean accuracy on D_r of the unlearned and of the retrained models, in one unit.
        test: The same on the test set.
    """
    if unlearned.shape != retrained.shape or unlearned.ndim != 2 or len(unlearned) < FEWEST or not unlearned.size:
        found = f"{unlearned.shape} unlearned and {retrained.shape} retrained"
        raise UserError(f"models: found margins of shape {found}; the score needs {FEWEST} or more, as many of either")
    if min(retain[1], test[1]) <= 0:
        raise UserError("accuracy: found 0 for retraining; a reference that is never right cannot be compared with")
    seen = [epsilon(unlearned[:, sample], retrained[:, sample]) for sample in range(unlearned.shape[1])]
    epsilons = [value or 0.0 for value in seen]
    quality = float(np.mean([points(value, len(unlearned)) for value in epsilons]))
    utility = retain[0] / retain[1] * test[0] / test[1]
    count = len(unlearned)
    return ChallengeScore(quality, quality * utility, tuple(epsilons), seen.count(None), count, chance(count))


@cache
def chance(models: int) -> float:
    """F of Gaussian margins, ``models`` of either kind from one distribution; the mean over ``ALIKE`` samples."""
    drawn = np.random.default_rng(0).standard_normal((2, models, ALIKE))
    return float(np.mean([points(epsilon(*drawn[:, :, sample]) or 0.0, models) for sample in range(ALIKE)]))


def points(value: float, models: int) -> float:
    """2^-b for an epsilon of the bucket [b/2, b/2 + 1/2); 0 from ceil(log(models - 1)) on."""
    bucket = math.floor(value / BUCKET)
    return 2.0**-bucket if (bucket + 1) * BUCKET <= math.ceil(math.log(models - 1)) else 0.0


def epsilon(unlearned: Array, retrained: Array) -> float | None:
    """How far apart one sample's margins under both kinds of models ``[m]`` are, 0 to 50; ``None`` if undecided.

    The largest of log(1 - delta - fpr) - log(fnr) and log(1 - delta - fnr) - log(fpr) over a grid of rules, or the cap
    where a rule errs never. A rule that errs in one way only is dropped: too few models to say how often it would.
    """
    ranges = sorted([np.ptp(unlearned), np.ptp(retrained)])
    if ranges[1] == 0 and unlearned[0] == retrained[0]:
        return 0.0
    if ranges[0] < PEAKED * ranges[1] or ranges[1] == 0:
        return CAP
    above = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    rates = np.concatenate([_two_thresholds(*above), _one_threshold(*above)], axis=1)
    misses, alarms = rates
    if np.any((misses == 0) & (alarms == 0)):
        return CAP
    misses, alarms = rates[:, (misses > 0) & (alarms > 0)]
    if not misses.size:
        return None
    found = [_log_ratio(alarms, misses).max(), _log_ratio(misses, alarms).max()]
    return float(np.clip(max(found), 0, CAP))


def _log_ratio(one: Array, other: Array) -> Array:
    """log(1 - delta - one) - log(other); -infinity where nothing is left to take the logarithm of."""
    left = 1 - DELTA - one
    return np.where(left > 0, np.log(np.maximum(left, DELTA)) - np.log(other), -np.inf)


def _one_threshold(positive: Array, negative: Array) -> Array:
    """Misses and false alarms ``[2, t]`` of the rules "positive from here on", positive having the larger median."""
    low, high = min(positive.min(), negative.min()), max(positive.max(), negative.max())
    thresholds = np.linspace(low, high, math.ceil((high - low) * PER_UNIT))
    below = [np.searchsorted(np.sort(side), thresholds, side="left") / len(side) for side in (positive, negative)]
    return np.stack([below[0], 1 - below[1]])


def _two_thresholds(positive: Array, negative: Array) -> Array:
    """Misses and false alarms ``[2, t]`` of the rules "of the more peaked kind from here to there"."""
    inside, outside = (negative, positive) if np.ptp(positive) >= np.ptp(negative) else (positive, negative)
    width = np.ptp(inside)
    start, stop = inside.min() + width - BUFFER, inside.max() + BUFFER
    right = np.linspace(start, stop, math.ceil((stop - start) * PER_UNIT))[:, None]
    left = right - width + np.linspace(-BUFFER, BUFFER, math.ceil(2 * BUFFER * PER_UNIT))
    hits, alarms = (_share_between(side, left, right) for side in (inside, outside))
    return np.stack([1 - hits.reshape(-1), alarms.reshape(-1)])


def _share_between(values: Array, left: Array, right: Array) -> Array:
    ordered = np.sort(values)
    upto = np.searchsorted(ordered, right, side="right")
    return np.asarray(np.maximum(0, upto - np.searchsorted(ordered, left, side="left")) / len(values))
