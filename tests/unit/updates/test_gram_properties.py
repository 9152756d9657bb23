"""What each rule of two weights claims, by a table; and a rule that does not claim it, and fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from erase.protocols import UpdateState
from erase.updates import MGDA, CAGrad, GradientProjection, Nash, PCGrad, UPGrad, WeightedSum
from erase.updates.gram import GramRule
from tests.properties import (
    assert_deterministic,
    assert_finite_at_zero,
    assert_non_conflicting,
    assert_permutation_invariant,
    assert_scale_equivariant,
    assert_scale_invariant,
)
from tests.unit.updates.pairs import KINDS, many, pairs, weights_of

RULES: dict[str, GramRule | WeightedSum] = {
    "weighted_sum": WeightedSum(),
    "pcgrad": PCGrad(),
    "upgrad": UPGrad(),
    "mgda": MGDA(),
    "cagrad": CAGrad(c=0.5),
    "cagrad of radius 1": CAGrad(c=1.0),
    "cagrad of radius 2": CAGrad(c=2.0),
    "nash": Nash(),
    "gradient_projection": GradientProjection(),
}
CLAIMS: dict[str, list[str]] = {
    "non-conflicting": ["pcgrad", "upgrad", "mgda", "cagrad of radius 1", "cagrad of radius 2", "nash"],
    "permutation-invariant": [name for name in RULES if name != "gradient_projection"],
    "scale-equivariant": [name for name in RULES if name != "nash"],
    "scale-invariant": ["nash"],
}
"""Which rule claims which property; every rule is finite at a zero gradient, and deterministic."""
PAIRS = pairs(KINDS, 6, 6)
SCALES = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)
RETAIN, FORGET = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([-3.0, 1.0], dtype=torch.float64)
"""Two in conflict."""


def weigh(rule: GramRule | WeightedSum) -> Any:
    """The rule's factors; of the sum, which has none, as they show in two more entries that one gradient has alone."""
    if isinstance(rule, GramRule):
        return lambda retain, forget: weights_of(rule, retain, forget)

    def seen(retain: Tensor, forget: Tensor) -> tuple[float, float]:
        first, second = torch.eye(2, dtype=retain.dtype)
        made = combine(rule)(torch.cat([retain, first]), torch.cat([forget, second]))
        return made[-2].item(), made[-1].item()

    return seen


def combine(rule: GramRule | WeightedSum) -> Any:
    def combined(retain: Tensor, forget: Tensor) -> Tensor:
        result = forget.clone()
        rule.combine([retain.clone()], [result], UpdateState())
        return result

    return combined


@pytest.mark.parametrize("name", CLAIMS["non-conflicting"])
@many
@given(gradients=PAIRS)
def test_it_opposes_neither_gradient(name: str, gradients: tuple[Tensor, Tensor]) -> None:
    assert_non_conflicting(weigh(RULES[name]), *gradients)


@many
@given(gradients=PAIRS)
def test_gradient_projection_never_opposes_the_retain_gradient(gradients: tuple[Tensor, Tensor]) -> None:
    retain, forget = gradients
    w_retain, w_forget = weights_of(GradientProjection(), retain, forget)
    inner = torch.dot(w_retain * retain + w_forget * forget, retain)
    assert inner >= -1e-9 * (w_retain * retain.norm() + w_forget * forget.norm()) * retain.norm()


@pytest.mark.parametrize("name", CLAIMS["permutation-invariant"])
@many
@given(gradients=PAIRS)
def test_swapping_the_objectives_changes_nothing(name: str, gradients: tuple[Tensor, Tensor]) -> None:
    assert_permutation_invariant(weigh(RULES[name]), *gradients)


@pytest.mark.parametrize("name", CLAIMS["scale-equivariant"])
@many
@given(gradients=PAIRS, scale=SCALES)
def test_it_grows_with_the_gradients(name: str, gradients: tuple[Tensor, Tensor], scale: float) -> None:
    assert_scale_equivariant(weigh(RULES[name]), *gradients, scale)


@pytest.mark.parametrize("name", CLAIMS["scale-invariant"])
@many
@given(gradients=PAIRS, scale=SCALES)
def test_it_does_not_grow_with_the_gradients(name: str, gradients: tuple[Tensor, Tensor], scale: float) -> None:
    assert_scale_invariant(weigh(RULES[name]), *gradients, scale)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_that_vanishes_leaves_the_result_finite(
    rule: GramRule | WeightedSum, size: float, dtype: torch.dtype
) -> None:
    assert_finite_at_zero(combine(rule), size * torch.randn(7, dtype=dtype))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@many
@given(gradients=PAIRS)
def test_the_same_gradients_give_the_same_bits(rule: GramRule | WeightedSum, gradients: tuple[Tensor, Tensor]) -> None:
    assert_deterministic(combine(rule), *gradients)


# Each property can fail


def test_the_weighted_sum_and_a_narrow_cagrad_may_oppose_a_gradient() -> None:
    # (1, 0) + (-3, 1) = (-2, 1), against (1, 0)
    with pytest.raises(AssertionError, match="opposes the retain gradient: -2"):
        assert_non_conflicting(lambda _r, _f: (1.0, 1.0), RETAIN, FORGET)
    with pytest.raises(AssertionError, match="opposes the retain gradient"):
        assert_non_conflicting(weigh(CAGrad(c=0.1)), RETAIN, FORGET)


def test_gradient_projection_may_oppose_the_forget_gradient() -> None:
    # (1, 0) + (-3, 1) + 3 (1, 0) = (1, 1), against (-3, 1)
    with pytest.raises(AssertionError, match="opposes the forget gradient: -2"):
        assert_non_conflicting(weigh(GradientProjection()), RETAIN, FORGET)


def test_gradient_projection_depends_on_which_is_which() -> None:
    with pytest.raises(AssertionError, match="swapping the objectives moves"):
        assert_permutation_invariant(weigh(GradientProjection()), RETAIN, FORGET)


def test_nash_does_not_grow_with_the_gradients_and_pcgrad_does() -> None:
    with pytest.raises(AssertionError, match="10 times the gradients"):
        assert_scale_equivariant(weigh(Nash()), RETAIN, FORGET, 10.0)
    with pytest.raises(AssertionError, match="10 times the gradients"):
        assert_scale_invariant(weigh(PCGrad()), RETAIN, FORGET, 10.0)


def test_directions_taken_by_division_alone_are_not_finite_at_zero() -> None:
    with pytest.raises(AssertionError, match="tensor 0 holds"):
        assert_finite_at_zero(lambda r, f: r / r.norm() + f / f.norm(), RETAIN)


def test_a_combination_by_chance_is_not_deterministic() -> None:
    with pytest.raises(AssertionError, match="differs by"):
        assert_deterministic(lambda r, f: r + torch.rand(()).item() * f, RETAIN, FORGET)
