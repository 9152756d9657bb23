"""Named facts that tests assert of any method: what it leaves untouched, and how its error falls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

STEPS = (0.1, 0.01, 0.001)


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


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
