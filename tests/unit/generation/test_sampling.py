"""Pictures: each from its own seed, the same in any batch and in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from erase.generation.sampling import SamplingSettings, Shot, generate
from tests.tiny import tiny_pipeline

SHOTS = [Shot("a star", 0), Shot("a red circle", 1), Shot("a star", 2), Shot("a blue moon in dotted style", 3)]
ONE_LEVEL = 1
"""Of 255: float32 convolutions round otherwise in another batch, and a pixel may fall on the other side."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def pictures(pipeline: Any, shots: list[Shot], batch_size: int = 4, guidance_scale: float = 4.0) -> np.ndarray:
    settings = SamplingSettings(steps=2, guidance_scale=guidance_scale, batch_size=batch_size)
    made = generate(pipeline, shots, settings)
    assert all(isinstance(image, Image.Image) for image in made)
    return np.stack([np.asarray(image) for image in made]).astype(int)


def test_each_shot_has_a_picture(pipeline: Any) -> None:
    assert pictures(pipeline, SHOTS).shape == (4, 16, 16, 3)
    assert generate(pipeline, [], SamplingSettings(steps=2)) == []


def test_the_same_shots_give_the_same_pictures(pipeline: Any) -> None:
    first = pictures(pipeline, SHOTS)
    torch.manual_seed(99)
    assert np.array_equal(pictures(pipeline, SHOTS), first)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_batch_size_does_not_change_a_picture(pipeline: Any, batch_size: int) -> None:
    difference = pictures(pipeline, SHOTS, batch_size) - pictures(pipeline, SHOTS)
    assert np.abs(difference).max() <= ONE_LEVEL


def test_the_order_does_not_change_a_picture(pipeline: Any) -> None:
    order = [2, 0, 3, 1]
    difference = pictures(pipeline, [SHOTS[i] for i in order]) - pictures(pipeline, SHOTS)[order]
    assert np.abs(difference).max() <= ONE_LEVEL


def test_another_seed_prompt_or_guidance_gives_another_picture(pipeline: Any) -> None:
    star, circle, other_star, _ = pictures(pipeline, SHOTS)
    same_seed = pictures(pipeline, [Shot("a red circle", 0)])[0]
    guided = pictures(pipeline, SHOTS[:1], guidance_scale=40.0)[0]
    for other in (circle, other_star, same_seed, guided):
        assert np.abs(star - other).max() > ONE_LEVEL


def test_a_picture_is_the_one_that_the_pipeline_itself_makes(pipeline: Any) -> None:
    rng = torch.Generator().manual_seed(1)
    expected = pipeline("a red circle", num_inference_steps=2, guidance_scale=4.0, generator=rng).images[0]
    assert np.abs(pictures(pipeline, SHOTS)[1] - np.asarray(expected).astype(int)).max() <= ONE_LEVEL
