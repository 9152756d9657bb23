"""Named facts that tests assert of any method: what it leaves untouched, and how its error falls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

STEPS = (0.1, 0.01, 0.001)
ROUNDING = 1e-7
"""What may be lost of a combination of two gradients, as a share of the lengths of its two parts: a float64 Gram matrix
knows a squared length that cancels to 1e-16, the length itself to 1e-8."""

Weigh = Callable[[Tensor, Tensor], tuple[float, float]]
"""The factors that a rule puts on the retain and on the forget gradient."""
Combine = Callable[[Tensor, Tensor], Tensor]
"""What a rule makes of the retain and of the forget gradient."""


def assert_same_bits(left: Iterable[Tensor], right: Iterable[Tensor]) -> None:
    """Equal to the last bit: -0.0 is not 0.0, and a NaN equals itself."""
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"tensor {index}: {a.dtype} {a.shape}, {b.dtype} {b.shape}"
        assert torch.equal(_bits(a), _bits(b)), f"tensor {index} differs by {(a - b).abs().max().item():.3g}"


@contextmanager
def assert_parameters_restored(parameters: Sequence[Tensor]) -> Iterator[None]:
    """After the body, raised or not, each parameter is the same tensor in the same memory with the same bits."""
    before = [p.detach().clone() for p in parameters]
    places = [p.data_ptr() for p in parameters]
    try:
        yield
    finally:
        assert_same_bits(parameters, before)
        assert [p.data_ptr() for p in parameters] == places, "a parameter was moved in memory"


def assert_finite(tensors: Iterable[Tensor]) -> None:
    """No NaN and no infinity."""
    for index, tensor in enumerate(tensors):
        assert torch.isfinite(tensor).all(), f"tensor {index} holds {tensor[~torch.isfinite(tensor)][:3].tolist()}"


def assert_order(error: Callable[[float], float], order: int) -> None:
    """The error falls by 10^order, within a factor of 2, each time the step falls by 10."""
    errors = [error(step) for step in STEPS]
    for larger, smaller in itertools.pairwise(errors):
        assert 0.5 < larger / smaller / 10**order < 2, f"not of order {order}: errors {errors} at steps {STEPS}"


def assert_linear_order(error: Callable[[float], float]) -> None:
    """The error is O(step), and no better."""
    assert_order(error, 1)


def assert_quadratic_order(error: Callable[[float], float]) -> None:
    """The error is O(step^2), and no better."""
    assert_order(error, 2)


def assert_non_conflicting(weigh: Weigh, retain: Tensor, forget: Tensor) -> None:
    """The combination opposes neither gradient: a small step against it raises neither loss."""
    direction, size = _combination(weigh(retain, forget), retain, forget)
    for name, gradient in (("retain", retain), ("forget", forget)):
        inner = torch.dot(direction, gradient).item()
        assert inner >= -ROUNDING * size * gradient.norm().item(), f"opposes the {name} gradient: {inner:.3g}"


def assert_permutation_invariant(weigh: Weigh, retain: Tensor, forget: Tensor) -> None:
    """Which objective is called which makes no difference."""
    one, size = _combination(weigh(retain, forget), retain, forget)
    other, other_size = _combination(weigh(forget, retain), forget, retain)
    moved = (one - other).norm().item()
    assert moved <= ROUNDING * max(size, other_size), f"swapping the objectives moves the result by {moved:.3g}"


def assert_scale_equivariant(weigh: Weigh, retain: Tensor, forget: Tensor, scale: float) -> None:
    """Both gradients ``scale`` times as long make the combination ``scale`` times as long, in the same direction."""
    _assert_scaled(weigh, retain, forget, scale, scale)


def assert_scale_invariant(weigh: Weigh, retain: Tensor, forget: Tensor, scale: float) -> None:
    """Both gradients ``scale`` times as long make the same combination."""
    _assert_scaled(weigh, retain, forget, scale, 1.0)


def assert_finite_at_zero(combine: Combine, gradient: Tensor) -> None:
    """A gradient that vanishes, either or both, leaves no NaN and no infinity behind."""
    zero = torch.zeros_like(gradient)
    assert_finite(combine(*pair) for pair in ((zero, gradient), (gradient, zero), (zero, zero)))


def assert_deterministic(combine: Combine, retain: Tensor, forget: Tensor) -> None:
    """The same gradients give the same bits, again and again."""
    first = combine(retain, forget)
    for _ in range(3):
        assert_same_bits([combine(retain, forget)], [first])


def _combination(weights: tuple[float, float], retain: Tensor, forget: Tensor) -> tuple[Tensor, float]:
    """The weighted sum, and the length of its two parts together."""
    parts = weights[0] * retain, weights[1] * forget
    return parts[0] + parts[1], sum(part.norm().item() for part in parts)


def _assert_scaled(weigh: Weigh, retain: Tensor, forget: Tensor, scale: float, expected: float) -> None:
    plain, size = _combination(weigh(retain, forget), retain, forget)
    scaled, _ = _combination(weigh(scale * retain, scale * forget), scale * retain, scale * forget)
    error = (scaled - expected * plain).norm().item()
    assert error <= ROUNDING * expected * size, f"{scale:.3g} times the gradients: wrong by {error:.3g}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
