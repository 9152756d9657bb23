"""CLIP score on each scale, by the embedded CLIP model on drawings that it knows."""

from __future__ import annotations

import pytest

from erase.config import build, dump
from erase.errors import UserError
from erase.evaluation.metrics.clip_model import load_clip
from erase.evaluation.metrics.clip_score import ClipScore
from tests.unit.evaluation.metrics.material import drawings


def test_the_scales_are_multiples_of_the_cosine() -> None:
    images, asked = drawings(6)
    cosines = ClipScore(model="shapes", scale="cosine")(images, asked)["clip_score"]
    hundred = ClipScore(model="shapes")(images, asked)["clip_score"]
    assert hundred == pytest.approx([100 * cosine for cosine in cosines])
    assert hundred == pytest.approx(load_clip("shapes")(images, [picture.prompt for picture in asked]), abs=1e-3)
    assert all(-1 <= cosine <= 1 for cosine in cosines)


def test_a_negative_cosine_is_kept_unless_the_scale_clips_it_and_says_for_which() -> None:
    images, asked = drawings(24)
    wrong = asked[::-1]
    plain = ClipScore(model="shapes", scale="cosine")(images, wrong)
    clipped = ClipScore(model="shapes", scale="2.5 x max(cosine, 0)")(images, wrong)
    assert min(plain["clip_score"]) < 0, "no negative cosine to test on"
    assert list(plain) == ["clip_score"]
    assert clipped["clip_score"] == pytest.approx([2.5 * max(c, 0) for c in plain["clip_score"]])
    assert clipped["clipped"] == [cosine < 0 for cosine in plain["clip_score"]]


def test_the_right_prompt_fits_better_than_a_wrong_one() -> None:
    images, asked = drawings(24)
    right, wrong = (ClipScore(model="shapes")(images, prompts)["clip_score"] for prompts in (asked, asked[::-1]))
    assert sum(r > w for r, w in zip(right, wrong, strict=True)) >= 22


def test_the_identity_names_library_weights_scale_and_what_is_cut() -> None:
    identity = ClipScore(model="shapes", scale="2.5 x max(cosine, 0)").identity()
    assert identity["library"] == "open_clip_torch" and identity["version"]
    assert identity["weights_sha256"] == load_clip("shapes").weights_hash and len(identity["weights_sha256"]) == 64
    assert (identity["scale"], identity["context_length"]) == ("2.5 x max(cosine, 0)", 16)
    assert identity["negative_cosines"].startswith("set to 0")
    assert ClipScore(model="shapes").identity()["negative_cosines"] == "kept"


def test_settings_are_read_back_and_a_wrong_scale_is_refused() -> None:
    metric = ClipScore(model="shapes", scale="cosine")
    _ = metric.clip
    assert build(ClipScore, dump(metric)) == metric
    with pytest.raises(UserError, match=r"scale: found '100'"):
        build(ClipScore, {"scale": "100"})
