"""KID and CMMD against independent code, their properties, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from erase.config import build, dump
from erase.errors import UserError
from erase.evaluation.metrics import kernel_distances
from erase.evaluation.metrics.features import ClipFeatures
from erase.evaluation.metrics.frechet import FID
from erase.evaluation.metrics.jackknife import group_of
from erase.evaluation.metrics.kernel_distances import CMMD, KID, cubic, pair_sums


def features(n: int = 60, d: int = 8, shift: float = 0.0, seed: int = 0) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift
    return torch.nn.functional.normalize(x, dim=1)


BOTH: tuple[KID | CMMD, ...] = (KID(), CMMD())
ONE, OTHER = features(), features(75, shift=0.4, seed=1)


def test_kid_is_torchmetrics_over_all_pairs() -> None:
    same = features(60, shift=0.4, seed=2)
    expected = poly_mmd(ONE.double(), same.double()).item()  # it needs two sets of one size
    assert KID().distance(ONE, same).estimate == pytest.approx(expected, rel=1e-9)


def test_kid_is_numpys_sum_over_pairs_that_differ() -> None:
    x, y = ONE.double().numpy(), OTHER.double().numpy()
    kernel = [(a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    n, m = len(x), len(y)
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernel[:2]]
    assert KID().distance(ONE, OTHER).estimate == pytest.approx(sum(within) - 2 * kernel[2].sum() / (n * m), rel=1e-9)


def test_kid_agrees_with_clean_fids_subsets() -> None:
    fid = pytest.importorskip("cleanfid.fid")
    x, y = features(400).double(), features(400, shift=0.4, seed=1).double()
    np.random.seed(0)
    subsets = fid.kernel_distance(x.numpy(), y.numpy(), num_subsets=200, max_subset_size=100)
    assert KID().distance(x, y).estimate == pytest.approx(float(subsets), rel=0.05)


def test_cmmd_is_the_authors_formula() -> None:
    """1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), every pair, sigma 10."""
    x, y = ONE.double().numpy(), OTHER.double().numpy()

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        squares = ((a[:, None] - b[None]) ** 2).sum(-1)
        return float(np.exp(-squares / 200).mean())

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert CMMD().distance(ONE, OTHER).estimate == pytest.approx(expected, rel=1e-8)


def test_two_points_by_hand() -> None:
    """All images of a set alike: KID is k(a, a) + k(b, b) - 2 k(a, b)."""
    a, b = torch.tensor([[1.0, 0.0]]).repeat(20, 1), torch.tensor([[0.0, 1.0]]).repeat(20, 1)
    assert KID().distance(a, b).estimate == pytest.approx(2 * 1.5**3 - 2 * 1.0)
    assert CMMD().distance(a, b).estimate == pytest.approx(1000 * 2 * (1 - np.exp(-2 / 200)))


@pytest.mark.parametrize("metric", BOTH)
def test_a_distance_is_symmetric_and_grows_with_the_shift(metric: KID | CMMD) -> None:
    assert metric.distance(ONE, OTHER).estimate == pytest.approx(metric.distance(OTHER, ONE).estimate, rel=1e-9)
    grown = [metric.distance(ONE, features(60, shift=by, seed=1)).estimate for by in (0.0, 0.3, 0.8, 2.0)]
    assert grown == sorted(grown)


def test_equal_sets_are_at_distance_zero_for_cmmd_and_no_further_for_kid() -> None:
    assert CMMD().distance(ONE, ONE).estimate == pytest.approx(0, abs=1e-9)
    assert KID().distance(ONE, ONE).estimate < 0  # unbiased: an image's twin in the other set counts, its own not
    drawn = [KID().distance(features(seed=s), features(seed=100 + s)).estimate for s in range(60)]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / np.sqrt(60)


def test_chunks_do_not_change_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [metric.distance(ONE, OTHER) for metric in BOTH]
    monkeypatch.setattr(kernel_distances, "CHUNK", 7)
    for metric, before in zip(BOTH, expected, strict=True):
        after = metric.distance(ONE, OTHER)
        assert (after.estimate, after.low, after.high) == pytest.approx((before.estimate, before.low, before.high))


def test_leaving_a_group_out_is_measuring_without_it() -> None:
    of = [group_of(len(x)) for x in (ONE, OTHER)]
    found = pair_sums(ONE, OTHER, cubic, of)
    kept = [x[group != 3] for x, group in zip((ONE, OTHER), of, strict=True)]
    again = pair_sums(kept[0], kept[1], cubic, [group_of(len(x)) for x in kept]).discrepancy(True)
    assert found.discrepancy(True, without=3) == pytest.approx(again, rel=1e-9)


def twins(n: int, seed: int, moved: float = 0.3, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Pairs of one prompt and seed: each alike, and both sets of one distribution if nothing is shifted."""
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, 8, generator=draw)
    both = [shared + moved * torch.randn(n, 8, generator=draw) for _ in range(2)]
    return both[0], both[1] + shift


def test_kid_of_pairs_leaves_twins_out() -> None:
    x, y = (side.double().numpy() for side in twins(40, 0, shift=0.2))
    kernel = [(a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    apart = [(k.sum() - np.trace(k)) / (40 * 39) for k in kernel]
    found = KID().distance(*twins(40, 0, shift=0.2), paired=True)
    assert found.estimate == pytest.approx(apart[0] + apart[1] - 2 * apart[2], rel=1e-9)


def test_kid_of_pairs_is_zero_for_equal_sets_and_on_average_where_nothing_changed() -> None:
    """Without `paired`, twins that are nearer than strangers draw it below zero."""
    same = KID().distance(ONE, ONE, paired=True)
    assert (same.estimate, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)
    drawn = [(KID().distance(*twins(40, s), paired=True).estimate, KID().distance(*twins(40, s)).estimate)
             for s in range(80)]  # fmt: skip
    (fair, unfair), error = np.mean(drawn, axis=0), np.std(drawn, axis=0) / np.sqrt(80)
    assert abs(fair) < 3 * error[0]
    assert unfair < -10 * error[1]


def test_leaving_a_group_of_pairs_out_is_measuring_without_it() -> None:
    one, other = twins(40, 0)
    of = group_of(40)
    found = pair_sums(one, other, cubic, [of, of], paired=True)
    kept = [x[of != 3] for x in (one, other)]
    again = pair_sums(kept[0], kept[1], cubic, [group_of(36)] * 2, paired=True).discrepancy(True)
    assert found.discrepancy(True, without=3) == pytest.approx(again, rel=1e-9)


def test_cmmd_of_pairs_is_the_authors_formula_too() -> None:
    one, other = twins(40, 0)
    assert CMMD().distance(one, other, paired=True) == CMMD().distance(one, other)
    assert CMMD().distance(one, one, paired=True).estimate == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", BOTH)
def test_sets_of_two_lengths_are_no_pairs(metric: KID | CMMD) -> None:
    with pytest.raises(UserError, match=f"{metric.name}: 60 images before and 75 after are no pairs"):
        metric.distance(ONE, OTHER, paired=True)
    with pytest.raises(UserError, match="60 images, but 2 prompts of theirs"):
        metric.distance(ONE, ONE, clusters=["a", "b"])


def test_images_of_one_prompt_that_agree_widen_the_interval() -> None:
    """Twenty prompts, each eight times over: by image they look like 160."""

    def wide(seed: int, clusters: list[int] | None) -> float:
        one, other = (side.repeat_interleave(8, 0) for side in twins(20, seed, moved=1.0))
        found = KID().distance(one, other, paired=True, clusters=clusters)
        return found.high - found.low

    prompts = [i // 8 for i in range(160)]
    assert np.mean([wide(s, prompts) for s in range(20)]) > 2 * np.mean([wide(s, None) for s in range(20)])


def test_a_few_prompts_make_few_groups_and_one_prompt_no_interval() -> None:
    found = KID().distance(ONE, ONE + 0.1, paired=True, clusters=[i % 4 for i in range(60)])
    assert found.method == "jackknife over 4 groups"
    alone = KID().distance(ONE, ONE + 0.1, paired=True, clusters=[0] * 60)
    assert (alone.method, alone.as_dict()["low"], alone.as_dict()["high"]) == ("none: one prompt", None, None)
    assert CMMD().distance(ONE, ONE, clusters=[0] * 60).low == 0
    with pytest.raises(UserError, match="60 images are too few: 61 are needed"):
        KID().distance(ONE, ONE, clusters=[0] * 59 + [1])


@pytest.mark.parametrize("metric", BOTH)
def test_the_fewest_images_are_known_without_any(metric: KID | CMMD) -> None:
    assert metric.fewest() == 20


def test_the_interval_of_kid_covers_the_truth() -> None:
    truth = KID().distance(features(4000, seed=7), features(4000, shift=0.4, seed=8)).estimate
    found = [KID().distance(features(100, seed=s), features(100, shift=0.4, seed=500 + s)) for s in range(150)]
    covered = sum(interval.low <= truth <= interval.high for interval in found) / len(found)
    assert 0.89 <= covered <= 1


@pytest.mark.parametrize("metric", BOTH)
def test_too_few_images_are_an_error_that_names_how_many_are_needed(metric: KID | CMMD) -> None:
    with pytest.raises(UserError, match=f"{metric.name}: 19 images are too few: 20 are needed"):
        metric.distance(ONE[:19], OTHER)
    assert metric.distance(ONE[:20], OTHER).n == 20


def test_of_unit_features_kid_sees_the_mean_alone() -> None:
    """(x y / d + 1)^3 is then 1 + 3 x y / d but for 1e-5; at CLIP's own length it is not: hence KID's default."""
    source = torch.Generator().manual_seed(0)
    before, others = (torch.nn.functional.normalize(torch.randn(400, 512, generator=source), dim=1) for _ in range(2))
    after = others[:5].repeat(80, 1)  # five pictures over and over

    def linear(x: Tensor, y: Tensor) -> float:
        own = [(s.sum(0).square().sum() - s.square().sum()) / (400 * 399) for s in (x.double(), y.double())]
        return float(3 / 512 * (own[0] + own[1] - 2 * x.double().mean(0) @ y.double().mean(0)))

    assert KID().distance(before, after).estimate == pytest.approx(linear(before, after), rel=0.02)
    assert KID().distance(10 * before, 10 * after).estimate > 1.1 * linear(10 * before, 10 * after)


@pytest.mark.parametrize(("kind", "unit"), [(KID, False), (FID, False), (CMMD, True)])
def test_each_distance_takes_features_as_its_paper_does(kind: type[KID | FID | CMMD], unit: bool) -> None:
    clip = {"name": "clip", "model": "shapes"}
    found = [kind().features, build(kind, {"features": clip}).features]
    assert [isinstance(f, ClipFeatures) and f.normalize for f in found] == [unit, unit]
    other = build(kind, {"features": {**clip, "normalize": not unit}})
    assert other.features == ClipFeatures(model="shapes", normalize=not unit)
    assert build(kind, dump(other)) == other
