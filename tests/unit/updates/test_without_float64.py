"""On a device that has no float64, as Apple's GPUs, what must be precise is worked out on the CPU."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from erase.gradients import parameter_norm
from erase.inner_products import cosine, precise
from erase.protocols import UpdateState
from erase.updates import MGDA, CAGrad, GradientProjection, Nash, PCGrad, TorchJD, UPGrad
from erase.updates.gram import GramRule, gram_of

DEVICE = torch.device("mps", 0)
RULES: list[GramRule] = [PCGrad(), UPGrad(), MGDA(), CAGrad(), Nash(), GradientProjection(), TorchJD()]


class OnApple(Tensor):
    """The CPU's numbers on a device that says it is Apple's, and refuses float64 in its words."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == cast(Any, Tensor.device).__get__:
            return DEVICE
        if func is Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].clone().as_subclass(Tensor)
        made = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(made, Tensor) and made.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return made


def on_apple(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(OnApple)


def pair(exponent: int) -> tuple[list[Tensor], list[Tensor]]:
    """Two gradients in conflict, of two tensors each and of the norms 10^exponent."""
    retain, other = torch.randn(2, 7, dtype=torch.float64)
    forget = other - 2 * retain
    parts = [(10.0**exponent * g / g.norm()).float().split([3, 4]) for g in (retain, forget)]
    return list(parts[0]), list(parts[1])


def test_the_device_refuses_float64_as_apple_s_does() -> None:
    """Or the tests below would show nothing."""
    held = on_apple(torch.ones(2))
    assert held.device == DEVICE
    assert (held + held).device == DEVICE
    for refused in (held.double, lambda: held.to(torch.float64), lambda: held.new_zeros(3, dtype=torch.float64)):
        with pytest.raises(TypeError, match="doesn't support float64"):
            refused()
    with pytest.raises((RuntimeError, TypeError, AssertionError)):
        torch.zeros(3, dtype=torch.float64, device=held.device)


def test_precise_is_float64_where_there_is_such_a_thing_and_on_the_cpu_where_not() -> None:
    held = torch.tensor([1.0, 2.0])
    assert (precise(held).dtype, precise(held).device.type) == (torch.float64, "cpu")
    moved = precise(on_apple(held))
    assert type(moved) is Tensor
    assert (moved.dtype, moved.device.type, moved.tolist()) == (torch.float64, "cpu", [1.0, 2.0])
    assert precise(held.to("meta")).device.type == "meta", "what has float64 stays where it is"


@pytest.mark.parametrize("exponent", [-12, 0, 12])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_makes_there_what_it_makes_on_the_cpu(rule: GramRule, exponent: int) -> None:
    """At norms of 1e-12 too, whose squares float32 would keep to few digits, or not at all for single entries."""
    retain, forget = pair(exponent)
    here = [f.clone() for f in forget]
    rule.combine(retain, here, UpdateState())
    there = [on_apple(f.clone()) for f in forget]
    rule.combine([on_apple(r) for r in retain], there, UpdateState())
    for found, expected in zip(there, here, strict=True):
        assert found.device == DEVICE
        assert torch.equal(found.cpu(), expected)


def test_gram_matrix_norm_and_cosine_are_the_cpu_s() -> None:
    retain, forget = pair(-12)
    assert gram_of([on_apple(r) for r in retain], [on_apple(f) for f in forget]) == gram_of(retain, forget)
    assert cosine(on_apple(retain[1]), on_apple(forget[1])) == cosine(retain[1], forget[1])
    there = cast(list[nn.Parameter], [on_apple(r) for r in retain])
    assert parameter_norm(there) == parameter_norm(cast(list[nn.Parameter], retain)) == pytest.approx(1e-12)
