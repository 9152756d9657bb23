"""Concept Ablation's accuracy: the target's pictures fit the target, the anchor's do not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from erase.config import build
from erase.errors import UserError
from erase.evaluation.metrics.clip_accuracy import ClipAccuracy
from erase.shapes.drawing import draw
from tests.unit.evaluation.metrics.material import Drawn

METRIC = ClipAccuracy(model="shapes", target="a star", anchor="a circle")
ASKED = [Drawn("a star")] * 12


def pictures(of: str) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(draw(of, ("red", "green", "blue")[i % 3], "flat", rng)) for i in range(12)]


def test_stars_fit_the_target_better_and_circles_the_anchor() -> None:
    assert sum(METRIC(pictures("star"), ASKED)["target_over_anchor"]) >= 11
    assert sum(METRIC(pictures("circle"), ASKED)["target_over_anchor"]) <= 1


def test_the_margin_is_100_times_the_cosines_difference() -> None:
    shown, said = METRIC.clip.embed(pictures("star")), METRIC.clip.read(["a star", "a circle"])
    cosines = shown @ said.T
    found = METRIC(pictures("star"), ASKED)
    assert found["target_over_anchor_margin"] == pytest.approx(
        (100 * (cosines[:, 0] - cosines[:, 1])).tolist(), abs=1e-3
    )
    assert found["target_over_anchor"] == [margin > 0 for margin in found["target_over_anchor_margin"]]


def test_exchanging_target_and_anchor_turns_every_answer_round() -> None:
    other = ClipAccuracy(model="shapes", target="a circle", anchor="a star")
    one, turned = (m(pictures("star"), ASKED)["target_over_anchor"] for m in (METRIC, other))
    assert turned == [not answer for answer in one]
    assert (METRIC.identity()["target"], METRIC.identity()["anchor"]) == ("a star", "a circle")


@pytest.mark.parametrize("wrong", [{}, {"target": "a cat"}, {"target": "a cat", "anchor": "a cat"}])
def test_two_prompts_that_differ_are_needed(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="two prompts that differ"):
        build(ClipAccuracy, wrong)


@pytest.mark.parametrize("prompt", ["a star", "two STAR signs", "a star, a ring"])
def test_a_target_prompt_that_names_the_audits_target_is_taken(prompt: str) -> None:
    ClipAccuracy(model="shapes", target=prompt, anchor="a circle").check_target("metrics.0", "star")


@pytest.mark.parametrize("prompt", ["a ring", "a starfish", "a photo of a church"])
def test_a_target_prompt_of_another_concept_is_refused(prompt: str) -> None:
    metric = ClipAccuracy(model="shapes", target=prompt, anchor="a circle")
    with pytest.raises(UserError, match=rf"^metrics\.4\.target: found '{prompt}', .* 'star'; give metrics\.4\.target"):
        metric.check_target("metrics.4", "star")
