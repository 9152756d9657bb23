"""The challenge's score: worked by hand, and every rule of the grid tried one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from erase.errors import UserError
from erase.evaluation.unlearning.challenge import CAP, DELTA, challenge_score, chance, epsilon, points

LOWER, HIGHER = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0, 5.0])
LOG_3 = math.log(0.75 - DELTA) - math.log(0.25)
"""Each side errs in one of four at a threshold between 2 and 3; any other rule is worse, or errs in one way only."""


def brute_force(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """The definition, a rule at a time: single thresholds, then pairs around the more peaked side."""
    positive, negative = (
        (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    )
    everything = np.concatenate([unlearned, retrained])
    thresholds = np.linspace(everything.min(), everything.max(), math.ceil(100 * np.ptp(everything)))
    rates = [(np.mean(positive < t), np.mean(negative >= t)) for t in thresholds]
    peaked, flat = (negative, positive) if np.ptp(positive) >= np.ptp(negative) else (positive, negative)
    first, last = peaked.min() + np.ptp(peaked) - 2, peaked.max() + 2
    for right in np.linspace(first, last, math.ceil(100 * (last - first))):
        for left in np.linspace(right - np.ptp(peaked) - 2, right - np.ptp(peaked) + 2, 400):
            inside = [np.mean((left <= side) & (side <= right)) for side in (peaked, flat)]
            rates.append((1 - inside[0], inside[1]))
    best = 0.0
    for pair in rates:
        for miss, alarm in itertools.permutations(pair):
            if miss == alarm == 0:
                return CAP
            if miss > 0 and alarm > 0 and 1 - DELTA - alarm > 0:
                best = max(best, math.log(1 - DELTA - alarm) - math.log(miss))
    return min(best, CAP)


def test_epsilon_by_hand_whichever_side_is_higher() -> None:
    assert epsilon(LOWER, HIGHER) == pytest.approx(LOG_3)
    assert epsilon(HIGHER, LOWER) == pytest.approx(LOG_3)


def test_epsilon_is_the_best_of_every_rule_of_the_grid() -> None:
    random = np.random.default_rng(0)
    unlearned, retrained = np.round(random.normal(0.4, 0.5, 6), 3), np.round(random.normal(0.0, 1.2, 6), 3)
    assert epsilon(unlearned, retrained) == pytest.approx(brute_force(unlearned, retrained))


def test_perfect_separation_is_the_cap() -> None:
    assert epsilon(LOWER, LOWER + 10) == CAP


def test_a_far_more_peaked_side_is_the_cap_without_looking() -> None:
    assert epsilon(1.5 + 0.001 * LOWER, LOWER) == CAP
    assert epsilon(np.full(4, 1.5), LOWER) == CAP


def test_equal_margins_cannot_be_told_apart() -> None:
    assert epsilon(LOWER, LOWER.copy()) == 0
    assert epsilon(np.ones(4), np.ones(4)) == 0


def test_two_thresholds_find_a_peak_that_one_cannot() -> None:
    random = np.random.default_rng(1)
    broad, narrow = random.normal(0, 2.0, 200), random.normal(0, 0.2, 200)
    thresholds = np.linspace(-6, 6, 1200)
    one = max(
        math.log(max(1e-9, 1 - DELTA - a)) - math.log(b)
        for side in (1, -1)
        for t in thresholds
        for a, b in itertools.permutations((np.mean(side * broad < side * t), np.mean(side * narrow >= side * t)))
        if a > 0 and b > 0
    )
    found = epsilon(narrow, broad)
    assert found is not None and found > one + 0.5


@pytest.mark.parametrize(
    ("value", "models", "worth"),
    [
        (0.0, 512, 1.0),
        (0.49, 512, 1.0),
        (0.5, 512, 0.5),
        (1.2, 512, 0.25),
        (6.9, 512, 2.0**-13),
        (7.0, 512, 0.0),  # ceil(log 511) = 7
        (1.0986, 4, 0.25),
        (2.0, 4, 0.0),  # ceil(log 3) = 2
        (CAP, 512, 0.0),
    ],
)
def test_points_halve_with_each_bucket(value: float, models: int, worth: float) -> None:
    assert points(value, models) == worth


def test_final_score_by_hand() -> None:
    """Epsilons log 3, 0 and the cap are worth 1/4, 1 and 0; utility is 90 / 100 x 80 / 96."""
    unlearned, retrained = np.stack([LOWER, LOWER, LOWER], axis=1), np.stack([HIGHER, LOWER, LOWER + 10], axis=1)
    found = challenge_score(unlearned, retrained, retain=(90, 100), test=(80, 96))
    assert found.epsilons == pytest.approx((LOG_3, 0, CAP))
    assert found.forgetting == pytest.approx(1.25 / 3)
    assert found.final == pytest.approx(1.25 / 3 * 0.9 * 80 / 96)
    assert (found.undecided, found.models) == (0, 4)


def test_a_sample_that_no_test_can_tell_is_counted_as_undecided() -> None:
    """It is worth as much as one that was forgotten: the count is what says that such a score is hollow."""
    unlearned, retrained = (0.5 + 1e-6 * np.array(x)[:, None] for x in ([0.0, 1.0, 2.0], [3.0, 4.0, 5.5]))
    found = challenge_score(unlearned, retrained, (1, 1), (1, 1))
    assert (found.undecided, found.epsilons, found.forgetting) == (1, (0.0,), 1.0)


def test_more_retraining_scores_a_fifth_and_what_is_far_off_next_to_nothing() -> None:
    random = np.random.default_rng(2)
    retrained = random.normal(size=(24, 60))
    own, far = random.normal(size=(24, 60)), random.normal(3.0, 1.0, size=(24, 60))
    scores = [challenge_score(side, retrained, (100, 100), (95, 95)).final for side in (own, far)]
    assert scores[0] == pytest.approx(0.2, abs=0.05)
    assert scores[1] < 0.03


@pytest.mark.parametrize("models", [3, 8])
def test_chance_is_what_retraining_gets_against_retraining_with_as_few_models(models: int) -> None:
    random = np.random.default_rng(7)
    own, other = random.normal(2.0, 3.0, size=(2, models, 200))
    found = challenge_score(own, other, (100, 100), (95, 95))
    assert found.chance == pytest.approx(found.final, abs=0.08)


def test_three_models_get_more_by_chance_than_eight() -> None:
    assert chance(3) > chance(8) + 0.1


def test_too_few_models_are_refused() -> None:
    with pytest.raises(UserError, match="3 or more"):
        challenge_score(np.zeros((2, 5)), np.zeros((2, 5)), (1, 1), (1, 1))
