"""The denoiser's precision, count and schedule, and which pipelines have one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from erase.diffusion.denoiser import Denoiser, EvaluationCounter, make_denoiser
from erase.diffusion.prediction import make_schedule
from erase.errors import UserError
from erase.shapes.build.denoiser import make_scheduler
from tests.tiny import tiny_pipeline
from tests.unit.diffusion.material import linear_denoiser, star_batch


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def test_predictions_are_float32_under_autocast_and_near_those_without(pipeline: Any) -> None:
    batch = star_batch(pipeline)
    plain = Denoiser(pipeline.unet, make_schedule(make_scheduler()))
    mixed = replace(plain, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    with torch.no_grad():
        exact, rounded = (d(batch.latents, batch.timesteps, batch.prompt) for d in (plain, mixed))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded), "autocast did nothing"
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)  # bfloat16 has 8 bits


def test_another_unet_shares_the_schedule() -> None:
    denoiser, other = linear_denoiser(1.0), linear_denoiser(2.0)
    assert denoiser.of(other.unet).schedule is denoiser.schedule
    assert denoiser.of(other.unet).unet is other.unet


def test_the_counter_counts_examples_while_it_watches(pipeline: Any) -> None:
    counter, batch = EvaluationCounter(), star_batch(pipeline)
    denoiser = Denoiser(pipeline.unet, make_schedule(make_scheduler()))
    with counter.watch(pipeline.unet):
        denoiser(batch.latents, batch.timesteps, batch.prompt)
        denoiser(batch.latents[:2], batch.timesteps[:2], batch.prompt[:2])
    denoiser(batch.latents, batch.timesteps, batch.prompt)
    assert counter.count == 5


def test_the_counter_lets_go_also_when_the_body_raises(pipeline: Any) -> None:
    counter = EvaluationCounter()
    with pytest.raises(ZeroDivisionError), counter.watch(pipeline.unet):
        raise ZeroDivisionError
    batch = star_batch(pipeline)
    pipeline.unet(batch.latents, batch.timesteps, batch.prompt.states)
    assert counter.count == 0


def test_a_unet_that_must_be_told_the_guidance_scale_is_refused(pipeline: Any) -> None:
    make_denoiser(pipeline)
    distilled = tiny_pipeline()
    distilled.register_modules(unet=UNet2DConditionModel.from_config(distilled.unet.config, time_cond_proj_dim=8))
    with pytest.raises(UserError, match=r"takes the guidance scale as an input .* erase from the model that it was"):
        make_denoiser(distilled)
