"""The losses by hand: a denoiser that is linear in the prompt's state makes every prediction a known number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from erase.diffusion.batch import Batch, split
from erase.diffusion.losses import (
    FORGET_LOSSES,
    RETAIN_LOSSES,
    AnchorRedirection,
    Denoising,
    ForgetLoss,
    GradientAscent,
    NegativeGuidance,
    RetainLoss,
    TeacherDistillation,
)
from tests.properties import assert_same_bits
from tests.unit.diffusion.material import constant_batch, linear_denoiser

LOSSES: list[ForgetLoss | RetainLoss] = [cls() for cls in (*FORGET_LOSSES.values(), *RETAIN_LOSSES.values())]


def everywhere(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 4, 2, 2)


def full_batch() -> Batch:
    return constant_batch([1.0, -2.0, 0.5], [0.25, 1.0, 3.0], [0.0, 4.0, 1.0], empty=-0.5, weight=[1.0, 2.0, 0.5])


def values_of(loss: ForgetLoss | RetainLoss, batch: Batch, base: float, student: float) -> Tensor:
    return loss(linear_denoiser(student), batch.with_target(loss.target(linear_denoiser(base), batch)))


def test_negative_guidance_aims_away_from_the_concept() -> None:
    batch = constant_batch([1.0, -2.0], [0.25, 1.0], empty=-0.5)
    target = NegativeGuidance(eta=2.0).target(linear_denoiser(1.0), batch)
    # 1 - 2 (0.25 + 0.5) and -2 - 2 (1 + 0.5)
    torch.testing.assert_close(target, everywhere([-0.5, -5.0]), rtol=0, atol=1e-6)


def test_negative_guidance_is_the_squared_distance_worked_by_hand() -> None:
    batch = constant_batch([1.0], [0.25], empty=-0.5)
    values = values_of(NegativeGuidance(eta=2.0), batch, base=1.0, student=3.0)
    assert values.tolist() == pytest.approx([12.25])  # (3 * 1 + 0.5)^2


@pytest.mark.parametrize(("eta", "target"), [(0.5, 0.625), (1.0, 0.25), (4.0, -2.0)])
def test_eta_is_how_far_negative_guidance_goes(eta: float, target: float) -> None:
    batch = constant_batch([1.0], [0.25], empty=-0.5)  # 1 - eta * 0.75
    found = NegativeGuidance(eta=eta).target(linear_denoiser(1.0), batch)
    torch.testing.assert_close(found, everywhere([target]), rtol=0, atol=1e-6)


def test_where_the_concept_is_absent_another_eta_stands_for_it() -> None:
    batch = constant_batch([1.0, 1.0], [0.25, 0.25], empty=-0.5, shows=[True, False])
    target = NegativeGuidance(eta=4.0, eta_absent=1.5).target(linear_denoiser(1.0), batch)
    torch.testing.assert_close(target, everywhere([1 - 4 * 0.75, 1 - 1.5 * 0.75]), rtol=0, atol=1e-6)


def test_anchor_redirection_is_the_distance_to_the_anchor() -> None:
    batch = constant_batch([1.0, 2.0], anchor=[-1.0, 0.5])
    values = values_of(AnchorRedirection(), batch, base=2.0, student=1.0)
    assert values.tolist() == pytest.approx([9.0, 1.0])  # (1 + 2)^2 and (2 - 1)^2


def test_teacher_distillation_is_the_distance_to_the_base() -> None:
    values = values_of(TeacherDistillation(), constant_batch([1.0, -2.0]), base=1.0, student=1.5)
    assert values.tolist() == pytest.approx([0.25, 1.0])  # (1.5 - 1)^2 and (-3 + 2)^2


def test_denoising_is_the_distance_to_the_noise() -> None:
    noise = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2)
    batch = replace(constant_batch([2.0]), noise=noise)
    values = values_of(Denoising(), batch, base=7.0, student=1.0)
    assert values.tolist() == pytest.approx([1.5])  # the mean of 1, 0, 1, 4; the base does not matter


def test_gradient_ascent_is_the_distance_to_the_noise_negated() -> None:
    batch = full_batch()
    losses = [values_of(loss, batch, base=7.0, student=1.0) for loss in (GradientAscent(), Denoising())]
    assert_same_bits([losses[0]], [-losses[1]])
    assert losses[0].max() < 0


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_weight_scales_its_own_example_alone(loss: ForgetLoss | RetainLoss) -> None:
    batch = full_batch()
    plain = values_of(loss, replace(batch, weight=torch.ones(3)), base=1.0, student=1.5)
    weighted = values_of(loss, batch, base=1.0, student=1.5)
    assert (plain != 0).all()
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 2.0, 0.5]))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_moves_with_the_order_of_its_examples(loss: ForgetLoss | RetainLoss) -> None:
    batch = full_batch()
    values = values_of(loss, batch, base=1.0, student=1.5)
    assert len({round(value, 4) for value in values.tolist()}) == 3
    for row, value in enumerate(values):
        alone = values_of(loss, split(batch, row, row + 1), base=1.0, student=1.5)
        torch.testing.assert_close(alone, value[None])


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_without_its_target_is_refused(loss: ForgetLoss | RetainLoss) -> None:
    with pytest.raises(ValueError, match="has no target"):
        loss(linear_denoiser(1.0), full_batch())


def test_a_forget_loss_says_which_states_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"negative_guidance needs the concept"):
        NegativeGuidance().target(linear_denoiser(1.0), constant_batch([1.0]))
    with pytest.raises(ValueError, match=r"anchor_redirection needs .* anchor"):
        AnchorRedirection().target(linear_denoiser(1.0), constant_batch([1.0]))


def test_each_table_finds_a_loss_under_its_own_name() -> None:
    for table in (FORGET_LOSSES, RETAIN_LOSSES):
        assert {name: cls().name for name, cls in table.items()} == {name: name for name in table}


def test_what_each_loss_needs_is_declared() -> None:
    assert [loss.name for loss in LOSSES if loss.needs_reference] == [
        "negative_guidance",
        "anchor_redirection",
        "teacher_distillation",
    ]
    assert [name for name, cls in FORGET_LOSSES.items() if cls.needs_anchor] == ["anchor_redirection"]
    assert [name for name, cls in RETAIN_LOSSES.items() if cls.needs_images] == ["denoising"]


@pytest.mark.parametrize("eta", [0.0, -1.0, float("inf")])
def test_eta_must_be_positive_and_finite(eta: float) -> None:
    with pytest.raises(ValueError, match="eta"):
        NegativeGuidance(eta=eta)
