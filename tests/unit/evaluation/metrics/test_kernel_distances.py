"""KID and CMMD against independent code, their properties, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from erase.errors import UserError
from erase.evaluation.metrics import kernel_distances
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
    found = pair_sums(ONE, OTHER, cubic)
    kept = [x[group_of(len(x)) != 3] for x in (ONE, OTHER)]
    again = pair_sums(kept[0], kept[1], cubic).discrepancy(True)
    assert found.discrepancy(True, without=3) == pytest.approx(again, rel=1e-9)


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
