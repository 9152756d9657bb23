"""Epsilon, velocity and SDXL behind one interface, on real UNets of tiny size."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase.diffusion.batch import Batch
from erase.diffusion.conditioning import encode_prompts, look_up
from erase.diffusion.denoiser import Denoiser, make_denoiser
from erase.diffusion.losses import FORGET_LOSSES, RETAIN_LOSSES, ForgetLoss, NegativeGuidance, RetainLoss
from erase.diffusion.pipelines import text_encoders, unknown_words, weighted_parts
from erase.diffusion.prediction import Diffusion
from tests.families import FAMILIES, tiny_v_pipeline, tiny_xl_pipeline
from tests.tiny import tiny_pipeline
from tests.unit.diffusion.material import perturb, star_batch

LOSSES: list[ForgetLoss | RetainLoss] = [cls() for cls in (*FORGET_LOSSES.values(), *RETAIN_LOSSES.values())]


class Converted(nn.Module):
    """A UNet that predicts noise, asked for the velocity: v = (eps - sqrt(1 - a) x_t) / sqrt(a)."""

    def __init__(self, unet: nn.Module, alphas: Tensor) -> None:
        super().__init__()
        self.unet, self.alphas = unet, alphas

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> SimpleNamespace:
        a = self.alphas[timesteps].view(-1, 1, 1, 1)
        epsilon = self.unet(noisy, timesteps, states).sample
        return SimpleNamespace(sample=(epsilon - (1 - a).sqrt() * noisy) / a.sqrt())


def both_ways(pipeline: Any) -> tuple[Denoiser, Denoiser]:
    """One model, told to predict noise and told to predict velocity."""
    epsilon = make_denoiser(pipeline)
    assert isinstance(epsilon.schedule, Diffusion)
    alphas = epsilon.schedule.alphas
    return epsilon, Denoiser(Converted(pipeline.unet, alphas), Diffusion(alphas, "v_prediction"))


def values(loss: ForgetLoss | RetainLoss, base: Denoiser, student: Denoiser, batch: Batch) -> Tensor:
    return loss(student, batch.with_target(loss.target(base, batch)))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@torch.no_grad()
def test_a_loss_in_velocity_is_the_one_in_noise_by_a_factor_of_the_timestep(loss: ForgetLoss | RetainLoss) -> None:
    """|d eps|^2 = a_t |d v|^2 example by example, whatever the loss does with its predictions."""
    base, moved = tiny_pipeline(), tiny_pipeline()
    perturb(moved.unet)
    batch = star_batch(base)
    (noise_base, velocity_base), (noise, velocity) = both_ways(base), both_ways(moved)
    a = noise.schedule.alphas[batch.timesteps]  # type: ignore[attr-defined]
    in_noise, in_velocity = values(loss, noise_base, noise, batch), values(loss, velocity_base, velocity, batch)
    assert in_noise.abs().min() > 1e-6
    torch.testing.assert_close(in_noise, a * in_velocity, rtol=1e-3, atol=1e-7)
    assert (in_noise - in_velocity).abs().max() > 1e-2 * in_noise.abs().max()


@torch.no_grad()
def test_the_target_of_negative_guidance_in_velocity_is_that_in_noise_converted() -> None:
    pipeline = tiny_pipeline()
    batch, (noise, velocity) = star_batch(pipeline), both_ways(pipeline)
    a = noise.schedule.alphas[batch.timesteps].view(-1, 1, 1, 1)  # type: ignore[attr-defined]
    mixed = noise.noisy(batch.latents, batch.noise, batch.timesteps)
    converted = a.sqrt() * NegativeGuidance().target(velocity, batch) + (1 - a).sqrt() * mixed
    torch.testing.assert_close(converted, NegativeGuidance().target(noise, batch), rtol=0, atol=1e-5)


def test_what_is_predicted_follows_from_the_pipelines_scheduler_alone() -> None:
    kinds = {name: make_denoiser(make(0)).schedule for name, make in FAMILIES.items()}
    assert {name: schedule.prediction for name, schedule in kinds.items()} == {  # type: ignore[attr-defined]
        "sd-epsilon": "epsilon",
        "sd-v": "v_prediction",
        "sdxl": "epsilon",
    }
    batch = star_batch(tiny_v_pipeline())
    truth = kinds["sd-v"].truth(batch.latents, batch.noise, batch.timesteps)
    assert (truth - batch.noise).abs().max() > 0.1


def record(pipeline: Any, prompts: list[str], **given: Any) -> dict[str, Any]:
    """What a pipeline hands to its UNet at its first step."""
    seen: list[dict[str, Any]] = []
    handle = pipeline.unet.register_forward_hook(lambda _, __, given, ___: seen.append(given), with_kwargs=True)
    try:
        pipeline(prompts, num_inference_steps=1, output_type="latent", **given)
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.parametrize("forced", [True, False])
def test_sdxl_is_told_what_the_plain_pipeline_tells_its_unet(forced: bool) -> None:
    """With guidance: what it pushes away from first, then the prompts; zeros, or the empty prompt."""
    pipeline, prompts = tiny_xl_pipeline(), ["a red star", "a circle"]
    pipeline.register_to_config(force_zeros_for_empty_prompt=forced)
    seen = record(pipeline, prompts, guidance_scale=4.0)
    told = look_up(encode_prompts(pipeline, [*prompts, ""]), ["", "", *prompts])
    assert told.pooled is not None and told.ids is not None
    torch.testing.assert_close(told.states, seen["encoder_hidden_states"], rtol=0, atol=1e-6)
    torch.testing.assert_close(told.pooled, seen["added_cond_kwargs"]["text_embeds"], rtol=0, atol=1e-6)
    assert torch.equal(told.ids, seen["added_cond_kwargs"]["time_ids"])
    assert seen["added_cond_kwargs"].keys() == told.arguments()["added_cond_kwargs"].keys()
    assert bool(told.states[:2].any()) is not forced


@torch.no_grad()
def test_every_part_of_sdxls_conditioning_reaches_its_unet() -> None:
    pipeline = tiny_xl_pipeline()
    denoiser, batch = make_denoiser(pipeline), star_batch(pipeline)
    said = batch.prompt
    assert said.pooled is not None and said.ids is not None
    first = denoiser(batch.latents, batch.timesteps, said)
    others = [
        replace(said, states=said.states + 1),
        replace(said, pooled=said.pooled + 1),
        replace(said, ids=said.ids * 4),
    ]
    for other in others:
        assert (denoiser(batch.latents, batch.timesteps, other) - first).abs().max() > 1e-4


def test_the_parts_with_weights_are_named_by_family() -> None:
    assert list(weighted_parts(tiny_pipeline())) == ["unet", "vae", "text_encoder"]
    assert list(weighted_parts(tiny_xl_pipeline())) == ["unet", "vae", "text_encoder", "text_encoder_2"]
    assert list(text_encoders(tiny_xl_pipeline())) == ["text_encoder", "text_encoder_2"]


def test_a_word_that_either_tokenizer_does_not_know_is_found() -> None:
    pipeline = tiny_xl_pipeline()
    assert unknown_words(pipeline, ["a star", "a zebra"]) == ["a zebra"]
    pipeline.tokenizer.unk_token = pipeline.tokenizer.eos_token
    assert unknown_words(pipeline, ["a star", "a zebra"]) == ["a zebra"], "the second still has none for it"
    pipeline.tokenizer_2.unk_token = pipeline.tokenizer_2.eos_token
    assert unknown_words(pipeline, ["a star", "a zebra"]) == []
