"""FID against three judges, its properties, and how it refuses too few images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from erase.config import build, dump
from erase.embedded import WEIGHTS
from erase.errors import UserError
from erase.evaluation.metrics import frechet
from erase.evaluation.metrics.features import ClipFeatures
from erase.evaluation.metrics.frechet import FID, sums


def features(n: int = 200, d: int = 12, shift: float = 0.0, seed: int = 0) -> Tensor:
    """Correlated, skewed, and not centered."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99))
    return (torch.randn(n, d, generator=draw) @ mix + shift + torch.rand(n, d, generator=draw) ** 3).float()


ONE, OTHER = features(), features(250, shift=0.7, seed=1) * 1.3
METRIC = FID()


def moments(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    data = x.double().numpy()
    return data.mean(0), np.cov(data, rowvar=False)


def test_fid_is_scipys_by_the_formula() -> None:
    (mu, s), (nu, t) = moments(ONE), moments(OTHER)
    by_hand = ((mu - nu) ** 2).sum() + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    assert METRIC.distance(ONE, OTHER).estimate == pytest.approx(by_hand, rel=1e-9)


def test_fid_is_torchmetrics() -> None:
    judge = FrechetInceptionDistance(feature=torch.nn.Identity(), input_img_size=(1, 1, 12))
    judge.update(ONE.double(), real=True)
    judge.update(OTHER.double(), real=False)
    assert METRIC.distance(ONE, OTHER).estimate == pytest.approx(judge.compute().item(), rel=1e-6)


def test_fid_is_clean_fids() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fid = pytest.importorskip("cleanfid.fid")
        expected = fid.frechet_distance(*moments(ONE), *moments(OTHER))
    assert METRIC.distance(ONE, OTHER).estimate == pytest.approx(float(expected), rel=1e-6)


def test_two_gaussians_of_one_dimension_by_hand() -> None:
    """(mu - nu)^2 + (sigma - tau)^2."""
    x = torch.linspace(-1, 1, 40)[:, None]
    sigma = float(x.std())
    assert METRIC.distance(x, 3 * x + 2).estimate == pytest.approx(4 + (2 * sigma) ** 2, rel=1e-5)


def test_fid_is_zero_for_equal_sets_symmetric_and_grows_with_the_shift() -> None:
    assert METRIC.distance(ONE, ONE).estimate == pytest.approx(0, abs=1e-5)
    assert METRIC.distance(ONE, ONE).estimate >= 0
    there, back = METRIC.distance(ONE, OTHER).estimate, METRIC.distance(OTHER, ONE).estimate
    assert there == pytest.approx(back, rel=1e-9)
    shifted = [METRIC.distance(ONE, ONE + by).estimate for by in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted)
    assert shifted[2] == pytest.approx(12 * 1.0, rel=1e-4)  # only the means differ, by 1 in each of 12


def test_the_order_of_the_images_changes_no_estimate_and_neither_do_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = METRIC.distance(ONE, OTHER).estimate
    turned = ONE[torch.randperm(len(ONE))]
    assert METRIC.distance(turned, OTHER).estimate == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(frechet, "CHUNK", 7)
    assert METRIC.distance(ONE, OTHER).estimate == pytest.approx(expected, rel=1e-9)
    assert sums(ONE)[0] == 200


def test_too_few_images_are_an_error_that_names_how_many_are_needed() -> None:
    """12 features: 13 images would make covariances of full rank, and 15 with any tenth left out."""
    with pytest.raises(UserError, match=r"fid: 14 images are too few: 15 are needed in each set, more than its 12 "):
        METRIC.distance(ONE[:14], OTHER)
    assert METRIC.distance(ONE[:15], OTHER).n == 15
    with pytest.raises(UserError, match="cannot be compared"):
        METRIC.distance(ONE, OTHER[:, :3])
    broken = ONE.clone()
    broken[3, 3] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        METRIC.distance(broken, OTHER)


def test_the_interval_covers_what_many_images_give() -> None:
    """The truth at n images: the mean over many draws of n, since FID is biased by their number."""
    found = [METRIC.distance(features(150, 4, 0, s), features(150, 4, 0.6, 1000 + s)) for s in range(120)]
    mean = sum(interval.estimate for interval in found) / len(found)
    covered = sum(interval.low <= mean <= interval.high for interval in found) / len(found)
    assert 0.88 <= covered <= 1
    assert all(interval.low >= 0 for interval in found)


def test_settings_choose_the_extractor() -> None:
    metric = build(FID, {"features": {"name": "clip", "model": "shapes"}})
    assert metric.features == ClipFeatures(model="shapes", normalize=False)
    assert build(FID, dump(metric)) == metric
    identity = metric.identity()
    assert identity["extractor"]["library"] == "open_clip_torch" and identity["extractor"]["normalized"] is False
    with pytest.raises(UserError, match="weights must be given"):
        build(FID, {"features": {"name": "inception"}})


def test_the_fewest_images_are_known_from_the_extractors_settings(tmp_path: Path) -> None:
    def fewest(**features: Any) -> int | None:
        return build(FID, {"features": features}).fewest()

    assert fewest(name="inception", weights="owner/name") == 2048 * 10 // 9 + 2
    assert fewest(name="clip", model="shapes") == 73 == fewest(name="clip", model=f"local-dir:{WEIGHTS / 'clip'}")
    assert fewest(name="clip") == 512 * 10 // 9 + 2 == fewest(name="clip", model="ViT-B/32")
    assert fewest(name="clip", model="hf-hub:owner/name") is None
    with pytest.raises(UserError, match="has no tag 'none'"):
        fewest(name="clip", model="ViT-B-32", pretrained="none")
    assert METRIC.distance(ONE[:15], OTHER[:15]).n == 15  # of 12 features: what `fewest` would say
    with pytest.raises(UserError, match="14 images are too few: 15"):
        METRIC.distance(ONE, OTHER[:14])


def test_prompts_are_left_out_whole() -> None:
    prompts = [i // 4 for i in range(200)]
    by_prompt = METRIC.distance(ONE, OTHER[:200], clusters=prompts)
    by_image = METRIC.distance(ONE, OTHER[:200], paired=True)
    assert by_prompt.estimate == by_image.estimate
    assert (by_prompt.low, by_prompt.high) != (by_image.low, by_image.high)
    with pytest.raises(UserError, match=r"16 images are too few: 21 are needed .* with a tenth left out"):
        METRIC.distance(ONE[:16], OTHER[:16], clusters=[i // 8 for i in range(16)])
