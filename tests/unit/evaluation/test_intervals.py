"""Intervals by hand, by scipy and by simulation: what covers, and how often nothing is called a change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from erase.errors import UserError
from erase.evaluation.intervals import (
    CHANGED,
    NOT_SHOWN,
    TOO_FEW,
    Interval,
    bootstrap_mean,
    cluster_means,
    effective_number,
    needed_pairs,
    paired_difference,
    share_of,
    verdict_of,
    wilson,
)

LEVELS = (0.9, 0.95, 0.99)


@given(n=st.integers(1, 500), share=st.floats(0, 1), level=st.sampled_from(LEVELS))
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(n * share)
    judge = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    found = wilson(successes, n, level)
    assert (found.low, found.high) == pytest.approx((judge.low, judge.high), abs=1e-12)
    assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_wilson_by_hand() -> None:
    """81 of 263: 0.3080, 0.2553 to 0.3662 (Newcombe 1998, "Two-sided confidence intervals", table I)."""
    found = wilson(81, 263)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert (found.successes, found.n, found.level) == (81, 263, 0.95)


def test_a_share_of_none_or_of_all_reaches_the_end_and_no_further() -> None:
    z = stats.norm.ppf(0.975) ** 2
    assert (wilson(0, 15).low, wilson(15, 15).high) == (0, 1)
    assert wilson(0, 15).high == pytest.approx(z / (15 + z))
    assert wilson(15, 15).low == pytest.approx(15 / (15 + z))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("n", [10, 30, 200])
def test_wilson_covers_about_95_percent(n: int, share: float) -> None:
    counts = np.arange(n + 1)
    inside = [wilson(int(k), n).low <= share <= wilson(int(k), n).high for k in counts]
    covered = stats.binom.pmf(counts, n, share)[inside].sum()  # exactly, not by sampling
    assert 0.92 <= covered <= 0.995


@pytest.mark.parametrize(("successes", "n", "message"), [(0, 0, "no images"), (5, 4, "5 of 4"), (-1, 4, "-1 of 4")])
def test_what_is_no_share_is_refused(successes: int, n: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    for measure in (lambda: wilson(1, 2, level), lambda: bootstrap_mean([1, 2], 0, level)):
        with pytest.raises(UserError, match="level: found"):
            measure()


def test_a_bootstrap_is_repeatable_and_other_seeds_agree_closely() -> None:
    values = np.random.default_rng(1).normal(size=50)
    one, same, other = bootstrap_mean(values, 3), bootstrap_mean(values, 3), bootstrap_mean(values, 4)
    assert one == same
    assert one != other
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.03)
    assert one.estimate == values.mean()


def test_a_bootstrap_is_close_to_students_interval_for_normal_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, 40)
    judge = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    found = bootstrap_mean(values, 0)
    assert (found.low, found.high) == pytest.approx(judge, abs=0.1)


def test_a_bootstrap_moves_and_scales_with_its_values() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    plain, moved = bootstrap_mean(values, 0), bootstrap_mean(5 - 2 * values, 0)
    assert (moved.low, moved.high) == pytest.approx((5 - 2 * plain.high, 5 - 2 * plain.low), abs=0.05)


def test_equal_values_have_an_interval_without_width() -> None:
    found = bootstrap_mean([2.5] * 12, 0)
    assert (found.low, found.estimate, found.high) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_a_bootstrap_covers_about_95_percent(n: int, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skewed values at ten images are the hard case: 90 percent, where plain percentile intervals cover 84."""
    monkeypatch.setattr("erase.evaluation.intervals.RESAMPLES", 1999)
    rng = np.random.default_rng(0)
    truth = 0.0 if shape == "normal" else 1.0
    samples = rng.normal(size=(600, n)) if shape == "normal" else rng.exponential(size=(600, n))
    found = [bootstrap_mean(sample, seed) for seed, sample in enumerate(samples)]
    covered = sum(interval.low <= truth <= interval.high for interval in found) / 600
    assert (0.89 if (shape, n) == ("exponential", 10) else 0.92) <= covered <= 0.98


def test_30000_values_are_resampled_less_often_but_as_precisely() -> None:
    values = np.random.default_rng(0).normal(size=30_000)
    found = bootstrap_mean(values, 0)
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(30_000), rel=0.08)


@pytest.mark.parametrize(
    ("values", "message"), [([], "no images"), ([1.0], "1 image"), ([1.0, math.nan], "number 1 is not")]
)
def test_values_without_a_mean_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bootstrap_mean(values, 0)


@pytest.mark.parametrize(("comparisons", "beyond"), [(1, False), (10, False), (50, True), (5000, True)])
def test_where_resamples_do_not_reach_the_tails_the_interval_is_students(comparisons: int, beyond: bool) -> None:
    """At 30 pairs, 0.05 / 50 leaves three of 9,999 resamples beyond each limit: too few to place it."""
    before = np.random.default_rng(0).normal(size=30)
    after = before + np.random.default_rng(1).exponential(size=30)
    found = paired_difference(before, after, comparisons=comparisons).difference
    level = 1 - 0.05 / comparisons
    judge = stats.t.interval(level, 29, (after - before).mean(), stats.sem(after - before))
    assert found.method.startswith("Student's t") == beyond
    assert found.level == pytest.approx(level)
    if beyond:
        assert (found.low, found.high) == pytest.approx(judge)
    else:
        assert (found.low, found.high) != pytest.approx(judge)


def test_a_higher_level_is_never_a_narrower_interval() -> None:
    values = np.random.default_rng(3).exponential(size=25)
    widths = [(i := bootstrap_mean(values, 0, 1 - 0.05 / m)).high - i.low for m in (1, 3, 10, 30, 100, 1000, 10_000)]
    assert widths == sorted(widths)


def test_a_table_of_200_means_has_a_false_change_in_at_most_about_5_percent() -> None:
    rng, false = np.random.default_rng(0), 0
    for _ in range(60):
        false += any(
            paired_difference(*rng.normal(size=(2, 25)), comparisons=200).verdict == CHANGED for _ in range(200)
        )
    assert false / 60 <= 0.12  # 5 percent, give or take 2.5 standard errors


# Shares of images that share prompts


def clusters_of(prompts: int, images: int) -> list[int]:
    return [prompt for prompt in range(prompts) for _ in range(images)]


@pytest.mark.parametrize("value", [False, True])
def test_shares_of_none_and_of_all_are_as_sure_as_their_prompts(value: bool) -> None:
    found, alone = share_of([value] * 60, clusters_of(10, 6)), wilson(10 * value, 10)
    assert (found.estimate, found.low, found.high) == pytest.approx((alone.estimate, alone.low, alone.high))
    assert (found.n, found.successes) == (10, None) and "60 images of 10 prompts taken as 10.0" in found.method


@given(shares=st.lists(st.booleans(), min_size=1, max_size=30), images=st.integers(1, 6))
def test_copies_of_an_image_tell_nothing_new(shares: list[bool], images: int) -> None:
    copies = share_of([value for value in shares for _ in range(images)], clusters_of(len(shares), images))
    alone = share_of(shares)
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    assert copies.n == alone.n


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=20))
def test_images_of_a_prompt_count_as_one_at_least_and_as_so_many_at_most(table: list[list[bool]]) -> None:
    values = np.array(table)
    n = effective_number(values.mean(1), values.size)
    assert len(table) <= n <= values.size
    found = share_of(values.ravel(), clusters_of(len(table), 4))
    assert 0 <= found.low <= found.estimate <= found.high <= 1 and found.high > found.low


def test_the_effective_number_by_hand() -> None:
    """Shares 0, 1/2, 1 and the two added: p = 1/2, s^2 = 4 (1/2)^2 / 5 = 0.2, and 3 x 0.25 / 0.2 = 3.75."""
    assert effective_number(np.array([0.0, 0.5, 1.0]), 12) == pytest.approx(3.75)
    assert effective_number(np.full(98, 0.5), 196) == 196  # 98 x 0.25 / 0.005 would be 4900: never more than images


@pytest.mark.parametrize("likeness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_clustered_shares_cover_about_95_percent(likeness: float, share: float) -> None:
    """Whether images of one prompt are independent, alike, or copies."""
    rng, clusters, covered = np.random.default_rng(0), clusters_of(20, 5), 0
    for _ in range(300):
        found = share_of(drawn(rng, 20, 5, share, likeness), clusters)
        covered += found.low - 1e-9 <= share <= found.high + 1e-9
    assert covered / 300 >= 0.92


def drawn(rng: np.random.Generator, prompts: int, images: int, share: float, likeness: float) -> np.ndarray:
    """Images whose prompts' own shares have the intra-cluster correlation ``likeness``."""
    if likeness in (0.0, 1.0):
        own = np.full(prompts, share) if likeness == 0 else (rng.random(prompts) < share).astype(float)
    else:
        spread = (1 - likeness) / likeness
        own = rng.beta(spread * share, spread * (1 - share), prompts)
    return (rng.random((prompts, images)) < own[:, None]).ravel()


@pytest.mark.parametrize("likeness", [0.0, 0.3, 1.0])
def test_clustered_shares_that_did_not_change_are_rarely_called_changed(likeness: float) -> None:
    rng, clusters, false = np.random.default_rng(1), clusters_of(20, 5), 0
    for _ in range(300):
        before, after = (drawn(rng, 20, 5, 0.6, likeness) for _ in range(2))
        false += paired_difference(before, after, clusters=clusters).verdict == CHANGED
    assert false / 300 <= 0.07


def test_more_independent_images_make_a_clustered_difference_surer() -> None:
    rng, widths = np.random.default_rng(0), []
    for images in (1, 4, 16):
        then, now = (drawn(rng, 30, images, share, 0.0) for share in (0.9, 0.6))
        found = paired_difference(then, now, clusters=clusters_of(30, images)).difference
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True) and widths[2] < widths[0] / 2


# Paired differences


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


def test_the_paired_interval_is_newcombes() -> None:
    """Newcombe 1998, "Improved confidence intervals ... paired data", table II, method 10: 36, 12, 2, 0."""
    change = paired_difference(*pairs(36, 12, 2, 0))
    assert change.difference.estimate == pytest.approx(-0.2)
    assert (-change.difference.high, -change.difference.low) == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert (change.before, change.after, change.verdict) == (0.96, 0.76, CHANGED)


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(lambda cells: sum(cells) > 0))
def test_swapping_before_and_after_mirrors_the_interval(cells: tuple[int, int, int, int]) -> None:
    before, after = pairs(*cells)
    one, other = paired_difference(before, after).difference, paired_difference(after, before).difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert -1 <= one.low <= one.estimate <= one.high <= 1


def test_equal_answers_are_not_shown_to_change_and_all_lost_is_changed() -> None:
    same = [True, False] * 20
    assert paired_difference(same, same).verdict == NOT_SHOWN
    assert paired_difference([True] * 40, [False] * 40).verdict == CHANGED
    assert paired_difference([True] * 40, [True] * 40).verdict == NOT_SHOWN


def test_fewer_than_ten_pairs_are_too_few_whatever_they_say() -> None:
    assert paired_difference([True] * 9, [False] * 9).verdict == TOO_FEW
    assert paired_difference([True] * 10, [False] * 10).verdict == CHANGED
    assert paired_difference([0.0], [5.0]).verdict == TOO_FEW
    assert paired_difference([0.0] * 10, [5.0] * 10).verdict == CHANGED


@pytest.mark.parametrize("level", [0.95, 0.999, 0.9999, 0.9999999])
def test_the_fewest_pairs_are_those_of_a_sign_test_that_could_show_anything(level: float) -> None:
    n = needed_pairs(level)
    assert stats.binomtest(0, n).pvalue <= 1 - level + 1e-15
    assert n == 10 or stats.binomtest(0, n - 1).pvalue > 1 - level


@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_about_5_percent_of_shares_that_did_not_change_are_called_changed(n: int, noise: float) -> None:
    rng, false = np.random.default_rng(0), 0
    for _ in range(1000):
        truth = rng.random(n) < 0.7
        before, after = truth ^ (rng.random(n) < noise), truth ^ (rng.random(n) < noise)
        false += paired_difference(before, after).verdict == CHANGED
    assert false / 1000 < 0.065


def test_about_5_percent_of_means_that_did_not_change_are_called_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.evaluation.intervals.RESAMPLES", 999)
    rng = np.random.default_rng(0)
    false = sum(
        paired_difference(rng.normal(size=25), rng.normal(size=25), seed=seed).verdict == CHANGED for seed in range(600)
    )
    assert 0.02 < false / 600 < 0.08


def test_a_true_change_is_found() -> None:
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        before, after = rng.random(100) < 0.9, rng.random(100) < 0.5
        found += paired_difference(before, after).verdict == CHANGED
    assert found / 200 > 0.99


def test_a_table_of_twenty_has_a_false_change_in_about_5_percent_only_if_it_is_told_so() -> None:
    rng, alone, together = np.random.default_rng(0), 0, 0
    for _ in range(200):
        tables = [rng.random((2, 60)) < 0.5 for _ in range(20)]
        alone += any(paired_difference(b, a).verdict == CHANGED for b, a in tables)
        together += any(paired_difference(b, a, comparisons=20).verdict == CHANGED for b, a in tables)
    assert together / 200 < 0.08
    assert alone / 200 > 0.4
    assert paired_difference([True] * 60, [False] * 60, comparisons=20).difference.level == pytest.approx(0.9975)


def test_images_of_one_prompt_count_as_one() -> None:
    before, after = [True] * 30, [False] * 15 + [True] * 15
    clusters = [f"p{i % 6}" for i in range(30)]
    change = paired_difference(before, after, clusters=clusters)
    assert (change.difference.n, change.verdict) == (6, TOO_FEW)
    assert (change.before, change.after) == pytest.approx((1.0, 0.5))
    assert cluster_means(np.array([1.0, 2.0, 3.0]), ["b", "a", "b"]).tolist() == [2.0, 2.0]
    with pytest.raises(UserError, match="3 values, but 2 clusters"):
        cluster_means(np.zeros(3), ["a", "b"])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30), st.integers(1, 5))
def test_copies_of_a_pair_tell_nothing_new(answers: list[tuple[bool, bool]], images: int) -> None:
    before, after = ([side[i] for side in answers] for i in (0, 1))
    clusters = clusters_of(len(before), images)
    alone = paired_difference(before, after).difference
    copies = paired_difference(np.repeat(before, images), np.repeat(after, images), clusters=clusters).difference
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    assert copies.n == alone.n


@pytest.mark.parametrize(("then", "now"), [(True, True), (True, False), (False, False)])
def test_clusters_in_which_nothing_varies_are_not_certain(then: bool, now: bool) -> None:
    clustered = paired_difference([then] * 60, [now] * 60, clusters=clusters_of(12, 5)).difference
    alone = paired_difference([then] * 12, [now] * 12).difference
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high))
    assert clustered.high - clustered.low > 0.2
    assert clustered.method == "Newcombe, paired, by prompt"


def test_prompts_of_several_images_do_not_make_false_changes() -> None:
    """Ten images of a prompt that agree: by image the same data look like ten times as many."""
    rng, by_image, by_prompt = np.random.default_rng(0), 0, 0
    clusters = [p for p in range(20) for _ in range(10)]
    for seed in range(150):
        before, after = (np.repeat(rng.random(20) < 0.5, 10) for _ in range(2))
        by_image += paired_difference(before, after, seed=seed).verdict == CHANGED
        by_prompt += paired_difference(before, after, seed=seed, clusters=clusters).verdict == CHANGED
    assert by_prompt / 150 < 0.1 < 0.3 < by_image / 150


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([True], [], "1 values before and 0 after"),
        ([], [], "no images"),
        ([1.0, math.inf], [1.0, 2.0], "before: number 1"),
    ],
)
def test_what_is_no_pair_is_refused(before: list[float], after: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        paired_difference(before, after)
    with pytest.raises(UserError, match="comparisons: found 0"):
        paired_difference([True], [True], comparisons=0)


def test_an_interval_says_all_in_json() -> None:
    assert wilson(3, 4).as_dict()["successes"] == 3
    one = paired_difference([1.0], [2.0])
    assert one.as_dict()["difference"] == {
        "estimate": 1.0,
        "low": None,
        "high": None,
        "n": 1,
        "level": 0.95,
        "method": "none: one pair",
    }
    assert verdict_of(Interval(1, 0.1, 2, 10, 0.95, "")) == CHANGED
    assert verdict_of(Interval(-1, -2, -0.1, 10, 0.95, "")) == CHANGED
