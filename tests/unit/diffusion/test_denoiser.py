"""The denoiser's schedule, precision and count, and the prompts' states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from erase.diffusion.denoiser import Denoiser, EvaluationCounter, encode_prompts
from erase.shapes.build.denoiser import make_scheduler
from tests.tiny import WIDTH, tiny_pipeline
from tests.unit.diffusion.material import linear_denoiser, star_batch, velocity_scheduler


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def test_noisy_latents_are_the_schedules_mixture() -> None:
    denoiser = linear_denoiser(1.0)
    latents, noise, timesteps = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([0, 700])
    a = denoiser.scheduler.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    expected = a.sqrt() * latents + (1 - a).sqrt() * noise
    torch.testing.assert_close(denoiser.noisy(latents, noise, timesteps), expected)
    assert denoiser.scheduler.alphas_cumprod[0].item() == pytest.approx(1 - 0.00085)  # Stable Diffusion 1.x
    assert denoiser.scheduler.alphas_cumprod[999].item() == pytest.approx(0.00466, rel=2e-3)


def test_the_truth_is_the_noise_or_the_velocity() -> None:
    latents, noise, timesteps = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([10, 700])
    epsilon = linear_denoiser(1.0)
    velocity = replace(epsilon, scheduler=velocity_scheduler())
    a = epsilon.scheduler.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    assert torch.equal(epsilon.truth(latents, noise, timesteps), noise)
    expected = a.sqrt() * noise - (1 - a).sqrt() * latents
    torch.testing.assert_close(velocity.truth(latents, noise, timesteps), expected)


def test_predictions_are_float32_under_autocast_and_near_those_without(pipeline: Any) -> None:
    batch = star_batch(pipeline)
    plain = Denoiser(pipeline.unet, make_scheduler())
    mixed = replace(plain, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    with torch.no_grad():
        exact, rounded = (d(batch.latents, batch.timesteps, batch.prompt) for d in (plain, mixed))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded), "autocast did nothing"
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)  # bfloat16 has 8 bits


def test_another_unet_shares_the_schedule() -> None:
    denoiser, other = linear_denoiser(1.0), linear_denoiser(2.0)
    assert denoiser.of(other.unet).scheduler is denoiser.scheduler
    assert denoiser.of(other.unet).unet is other.unet


def test_the_counter_counts_examples_while_it_watches(pipeline: Any) -> None:
    counter, batch = EvaluationCounter(), star_batch(pipeline)
    denoiser = Denoiser(pipeline.unet, make_scheduler())
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
    pipeline.unet(batch.latents, batch.timesteps, batch.prompt)
    assert counter.count == 0


def test_states_are_those_that_the_pipeline_itself_uses(pipeline: Any) -> None:
    prompts = ["a star", "", "a red circle in dotted style"]
    states = encode_prompts(pipeline, prompts)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(torch.stack([states[prompt] for prompt in prompts]), expected, rtol=0, atol=1e-6)


def test_each_distinct_prompt_has_one_state_whatever_the_batch(pipeline: Any) -> None:
    prompts = ["a star", "a circle", "a star", "", "a moon"]
    together, singly = encode_prompts(pipeline, prompts), encode_prompts(pipeline, prompts, batch_size=1)
    assert list(together) == list(singly) == ["a star", "a circle", "", "a moon"]
    for prompt, state in together.items():
        assert state.shape == (12, WIDTH) and not state.requires_grad
        torch.testing.assert_close(singly[prompt], state, rtol=0, atol=1e-6)  # float32 rounds by batch size
    assert (together["a star"] - together["a circle"]).abs().max() > 1e-3


def test_a_prompt_that_is_too_long_is_cut(pipeline: Any) -> None:
    words = "a red star in dotted style a red star in dotted style"
    states = encode_prompts(pipeline, [words, f"{words} a red star"])
    assert states[words].shape == (12, WIDTH)
    assert torch.equal(*states.values())
