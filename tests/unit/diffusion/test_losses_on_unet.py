"""The losses on a real UNet, against the papers' own forms and diffusers' training loss."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from erase.diffusion.batch import Batch
from erase.diffusion.conditioning import Conditioning
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses import AnchorRedirection, Denoising, NegativeGuidance, TeacherDistillation
from erase.diffusion.prediction import make_schedule
from erase.shapes.build.denoiser import make_scheduler
from tests.tiny import tiny_pipeline
from tests.unit.diffusion.material import perturb, star_batch, velocity_schedule

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 2e-6}
"""Predictions are of size 1; convolutions over another batch size round otherwise in float32."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture
def batch(pipeline: Any) -> Batch:
    return star_batch(pipeline)


@pytest.fixture
def base(pipeline: Any) -> Denoiser:
    return Denoiser(copy.deepcopy(pipeline.unet).eval().requires_grad_(False), make_schedule(make_scheduler()))


def moved(base: Denoiser) -> Denoiser:
    unet: UNet2DConditionModel = copy.deepcopy(base.unet).requires_grad_(True)
    perturb(unet)
    return base.of(unet)


def predict(denoiser: Denoiser, batch: Batch, prompt: Conditioning | None) -> Tensor:
    assert prompt is not None
    noisy = make_scheduler().add_noise(batch.latents, batch.noise, batch.timesteps)
    return denoiser.unet(noisy, batch.timesteps, prompt.states).sample


def test_the_unet_tells_prompts_apart(base: Denoiser, batch: Batch) -> None:
    spread = (predict(base, batch, batch.prompt) - predict(base, batch, batch.baseline)).abs().amax((1, 2, 3))
    assert (spread > 1e-3).all(), "otherwise the tests below could not fail"


def test_with_the_concept_as_prompt_and_eta_2_negative_guidance_is_the_papers_esd(base: Denoiser, batch: Batch) -> None:
    assert batch.concept is not None
    said = replace(batch, prompt=batch.concept)
    empty, concept = predict(base, batch, batch.baseline), predict(base, batch, batch.concept)
    paper = empty - 1.0 * (concept - empty)
    torch.testing.assert_close(NegativeGuidance(eta=2.0).target(base, said), paper, **CLOSE)
    assert (NegativeGuidance(eta=1.0).target(base, said) - paper).abs().max() > 1e-3


def test_negative_guidance_takes_the_concept_from_the_whole_prompt(base: Denoiser, batch: Batch) -> None:
    prompt, concept, empty = (predict(base, batch, s) for s in (batch.prompt, batch.concept, batch.baseline))
    found = NegativeGuidance(eta=1.5).target(base, batch)
    torch.testing.assert_close(found, prompt - 1.5 * (concept - empty), **CLOSE)


def test_teacher_distillation_and_its_gradient_are_exactly_0_before_training(base: Denoiser, batch: Batch) -> None:
    loss, student = TeacherDistillation(), base.of(copy.deepcopy(base.unet).requires_grad_(True))
    values = loss(student, batch.with_target(loss.target(base, batch)))
    values.sum().backward()
    assert values.tolist() == [0.0, 0.0, 0.0]
    gradients = [p.grad for p in student.unet.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_teacher_distillation_and_its_gradient_are_not_0_after_a_perturbation(base: Denoiser, batch: Batch) -> None:
    loss, student = TeacherDistillation(), moved(base)
    values = loss(student, batch.with_target(loss.target(base, batch)))
    values.sum().backward()
    assert (values > 1e-6).all()
    assert max(p.grad.abs().max().item() for p in student.unet.parameters()) > 1e-4


def test_redirection_to_the_prompt_itself_is_teacher_distillation(base: Denoiser, batch: Batch) -> None:
    itself, student = replace(batch, anchor=batch.prompt), moved(base)
    redirected, distilled = (
        loss(student, itself.with_target(loss.target(base, itself)))
        for loss in (AnchorRedirection(), TeacherDistillation())
    )
    assert torch.equal(redirected, distilled)
    elsewhere = AnchorRedirection().target(base, batch)
    assert (elsewhere - TeacherDistillation().target(base, batch)).abs().max() > 1e-3


def test_denoising_is_diffusers_loss_on_noise(base: Denoiser, batch: Batch) -> None:
    loss, plain = Denoising(), replace(batch, weight=torch.ones(3))
    values = loss(base, plain.with_target(loss.target(base, plain)))
    expected = F.mse_loss(predict(base, batch, batch.prompt), batch.noise, reduction="mean")
    torch.testing.assert_close(values.mean(), expected)


def test_denoising_is_diffusers_loss_on_velocity_where_the_schedule_says_so(base: Denoiser, batch: Batch) -> None:
    loss, plain = Denoising(), replace(batch, weight=torch.ones(3))
    velocity = replace(base, schedule=velocity_schedule())
    values = loss(velocity, plain.with_target(loss.target(velocity, plain)))
    truth = make_scheduler().get_velocity(batch.latents, batch.noise, batch.timesteps)
    expected = F.mse_loss(predict(base, batch, batch.prompt), truth, reduction="mean")
    torch.testing.assert_close(values.mean(), expected)
    assert (truth - batch.noise).abs().max() > 0.1


def test_no_loss_asks_twice_for_anything_random(base: Denoiser, batch: Batch) -> None:
    for loss in (NegativeGuidance(), AnchorRedirection(), TeacherDistillation(), Denoising()):
        torch.manual_seed(1)
        first = loss(base, batch.with_target(loss.target(base, batch)))
        torch.manual_seed(2)
        again = loss(base, batch.with_target(loss.target(base, batch)))
        assert torch.equal(first, again), loss.name
