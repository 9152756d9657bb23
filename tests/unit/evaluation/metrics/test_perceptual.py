"""Distances between two pictures: zero for one picture twice, by hand, and in order of what changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from erase.errors import UserError
from erase.evaluation.metrics.perceptual import ClipDistance, PixelDistance, pixels_of
from erase.shapes.drawing import draw
from tests.unit.evaluation.metrics.material import drawings

CLIP, PIXELS = ClipDistance(model="shapes"), PixelDistance()


def star(color: str, seed: int = 0) -> Image.Image:
    return Image.fromarray(draw("star", color, "flat", np.random.default_rng(seed)))


def test_a_picture_is_at_no_distance_from_itself() -> None:
    images, _ = drawings(4)
    assert CLIP(images, images)["clip_distance"] == pytest.approx([0] * 4, abs=1e-6)
    found = PIXELS(images, images)
    assert found["mean_absolute_difference"] == [0] * 4
    assert found["ssim"] == pytest.approx([1] * 4)


def test_distances_are_symmetric() -> None:
    one, other = drawings(4)[0], drawings(4, seed=9)[0][::-1]
    for metric in (CLIP, PIXELS):
        there, back = metric(one, other), metric(other, one)
        assert all(there[key] == pytest.approx(back[key], abs=1e-5) for key in there)


def test_the_pixel_distance_by_hand() -> None:
    black, gray = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16), (51, 0, 102))
    found = PIXELS([black], [gray])
    assert found["mean_absolute_difference"] == pytest.approx([(0.2 + 0 + 0.4) / 3])
    assert found["ssim"][0] < 0.5


def test_ssim_is_torchmetrics_pair_by_pair() -> None:
    """Drawings, noise on a white ground, and two grays; of several sizes at once, in the order of the pairs."""
    before, after = drawings(6)[0], drawings(6, seed=7)[0]
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(200, 256, (64, 48, 3), dtype=np.uint8)) for _ in range(2)]
    before[1:1], after[1:1] = [noise[0], Image.new("RGB", (32, 32), (250, 250, 255))], [noise[1], after[0]]
    found = PIXELS(before, after)
    for place, (then, now) in enumerate(zip(before, after, strict=True)):
        one, other = (pixels_of(image)[None].double() for image in (then, now))
        judge = structural_similarity_index_measure(one, other, data_range=1.0)
        assert found["ssim"][place] == pytest.approx(float(torch.as_tensor(judge)), abs=1e-9)
        assert found["mean_absolute_difference"][place] == pytest.approx(float((one - other).abs().mean()), abs=1e-12)
        alone = PIXELS([then], [now])
        assert all(alone[key] == pytest.approx([found[key][place]], abs=1e-12) for key in found)


def test_pairs_are_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = drawings(7)[0], drawings(7, seed=7)[0]
    whole = PIXELS(before, after)
    monkeypatch.setattr("erase.evaluation.metrics.perceptual.PIXELS", 3 * 32 * 32)
    assert PIXELS(before, after)["ssim"] == pytest.approx(whole["ssim"], abs=1e-12)
    assert PIXELS([], []) == {"mean_absolute_difference": [], "ssim": []}


def test_clip_sees_what_a_picture_shows_and_pixels_see_where() -> None:
    """The same red star drawn elsewhere is near for CLIP; a blue one in the same place is not."""
    red, moved, blue = star("red"), star("red", seed=5), star("blue")
    near, far = CLIP([red, red], [moved, blue])["clip_distance"]
    assert near < far
    assert PIXELS([red], [moved])["mean_absolute_difference"][0] > 0


def test_pictures_of_two_sizes_or_too_small_for_ssim_are_refused() -> None:
    images, _ = drawings(1)
    with pytest.raises(UserError, match=r"pixel_distance: a picture is \(32, 32\) before and \(16, 16\) after"):
        PIXELS(images, [images[0].resize((16, 16))])
    with pytest.raises(UserError, match="11 pixels a side are needed"):
        PIXELS([images[0].resize((8, 8))], [images[0].resize((8, 8))])


def test_the_identities_name_scale_and_constants() -> None:
    assert CLIP.identity()["scale"] == "1 - cosine" and CLIP.identity()["weights_sha256"]
    assert PIXELS.identity()["library"] == "torch" and "sigma 1.5" in PIXELS.identity()["ssim"]
