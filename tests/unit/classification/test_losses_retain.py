"""Retain losses, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from erase.classification.losses import RETAIN_LOSSES, BadTeacher, CrossEntropy, Distillation, L1Sparse
from tests.unit.classification.test_losses_forget import LN2, LOGITS, assert_values, batch, says

PLAIN = [math.log(2), math.log(5)]


def test_cross_entropy() -> None:
    assert_values(CrossEntropy(), batch([0, 2]), PLAIN)
    assert CrossEntropy().target(None, says(LOGITS), batch([0, 2])) is None


def test_l1_sparse_adds_the_sum_of_absolute_weights_less_and_less() -> None:
    parameters = [torch.tensor([1.0, -2.0]), torch.tensor([[0.5], [0.0]])]
    loss = L1Sparse(gamma=0.1)
    assert_values(loss, batch([0, 2]), PLAIN)
    for progress, expected in ((0.0, 0.35), (0.4, 0.21)):
        assert loss.penalty(parameters, batch([0], progress=progress)).item() == pytest.approx(expected)


def test_distillation_mixes_labels_and_the_original() -> None:
    given = batch([0, 1])
    teacher = torch.tensor([[0.0, 0.0, LN2], [0.0, math.log(3), 0.0]])
    given = replace(given, target=Distillation().target(says(teacher), says(LOGITS), given))
    loss = Distillation(gamma=0.5, alpha=2, temperature=1)
    assert_values(loss, given, [0.5 * LN2 + 2 * LN2 / 4, 0.5 * math.log(5 / 3)])


def test_distillation_of_gamma_0_is_bad_teachers_other_half() -> None:
    given = batch([0, 1], target=torch.randn(2, 3))
    torch.testing.assert_close(
        Distillation(gamma=0, alpha=1, temperature=1)(LOGITS, given), BadTeacher()(LOGITS, given)
    )


def test_the_table_finds_each_loss_under_its_own_name() -> None:
    assert {name: kind().name for name, kind in RETAIN_LOSSES.items()} == {name: name for name in RETAIN_LOSSES}
    assert {name for name, kind in RETAIN_LOSSES.items() if kind.needs_original} == {"distillation"}
    assert not any(kind.needs_random or kind.extra_class or kind.whole_batch for kind in RETAIN_LOSSES.values())
