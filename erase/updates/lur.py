"""Learning to unlearn while retaining: the forget loss is measured after a retain step.

Patel & Qiu, ICCV 2025 (arXiv 2503.06339): minimise L_r(theta) + L_f(theta - alpha g_r(theta)), where L_f
already carries its weight lambda. With u = g_f(theta - alpha g_r) the gradient is g_r + (I - alpha H_r) u;
to first order in alpha it raises <g_f, g_r>, the implicit regulariser that keeps the two from conflicting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn.attention import SDPBackend, sdpa_kernel

from erase.components import STRICT
from erase.gradients import Parameters, average, clear, gradients, preserved, restore, shift, sketch
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.randomness import derive
from erase.updates.alpha import Alpha, CorrectionAlpha
from erase.updates.cagrad import CAGrad
from erase.updates.gradient_projection import GradientProjection
from erase.updates.mgda import MGDA
from erase.updates.nash import Nash
from erase.updates.pcgrad import PCGrad
from erase.updates.torchjd_aggregator import TorchJD
from erase.updates.two_objectives import (
    Combination,
    LookAhead,
    Seen,
    gather_on_top,
    gather_second,
    one_after_the_other,
    report,
)
from erase.updates.upgrad import UPGrad
from erase.updates.weighted_sum import WeightedSum

Combine = WeightedSum | PCGrad | UPGrad | MGDA | CAGrad | Nash | GradientProjection | TorchJD


@plain_dataclass(frozen=True)
class Ahead:
    """What a mode is told for one step."""

    look: LookAhead
    measure: bool = False
    """Whether a mode that does not measure its correction by the way is to do so now."""
    combination: Combination | None = None
    """What stands for the sum; ``None``: the sum itself, which needs no second buffer."""


@dataclass(frozen=True, config=STRICT)
class LUR:
    """The meta-gradient update: 3 gradient evaluations a step for `chained` and `exact`, 2 for the others.

    A measure of the correction makes 3 of 2: `alternating` and `first_order` take some early on, then one every
    `measure_every` steps. One `chained` look finds alpha before the first step, whatever the mode, unless it is
    given. Memory: each mode's function says it.
    """

    name: Literal["lur"] = "lur"
    mode: Annotated[
        Literal["chained", "exact", "alternating", "first_order"],
        Field(
            description="chained: O(alpha^2) error, no second derivatives; exact: double backward; alternating: "
            "a coin a step, unbiased to O(alpha^2); first_order: ablation, not the alignment term"
        ),
    ] = "chained"
    alpha: Annotated[Alpha, Field(discriminator="name", description="how the look-ahead's length is set")] = (
        CorrectionAlpha()
    )
    combine: Annotated[
        Combine,
        Field(discriminator="name", description="what combines the two look-ahead gradients; a name alone will do"),
    ] = WeightedSum()
    measure_every: Annotated[
        int,
        Field(
            ge=0,
            description="alternating and first_order: steps between measures of the correction, "
            "beside the early ones that alpha asks for; 0: those alone",
        ),
    ] = 25

    @property
    def buffers(self) -> int:
        """A copy of the parameters, and what a combination takes; for `exact` two gradients and a graph more."""
        taken = self.combine.buffers
        return 4 + max(0, taken - 1) if self.mode == "exact" else 1 + taken

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the mode's gradient in ``.grad``; the parameters are as before, bit for bit."""

        def looked(ahead: LookAhead) -> Diagnostics:
            return chained(retain, forget, parameters, replace(state), Ahead(ahead)).without_sketches()

        spent = self.alpha.seek(parameters, state, looked) if state.alpha is None else 0
        look = self.alpha.choose(parameters, state)
        periodic = self.measure_every > 0 and (state.step - 1) % self.measure_every == 0
        measure = state.step > 0 and (periodic or self.alpha.wants_measure(state))
        combination = None if isinstance(self.combine, WeightedSum) else self.combine
        seen = MODES[self.mode](retain, forget, parameters, state, Ahead(look, measure, combination))
        self.alpha.learn(state, seen)
        return replace(seen, evaluations=spent + seen.evaluations)


def chained(
    retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState, step: Ahead
) -> Diagnostics:
    """u + g_r(theta - alpha u): the Hessian-vector product as a forward difference, error O(alpha^2).

    Each of the two shifts is cut by the gradient that it follows, so that theirs may differ; the second's is logged.
    Three evaluations. Memory: one gradient (two if they are combined), one copy of the parameters.
    """
    clear(parameters)
    with preserved(parameters) as saved:
        kept = gather_on_top(retain, parameters)
        shift(parameters, gradients(parameters), -step.look.within(kept.norm))
        clear(parameters)
        ahead = gather_on_top(forget, parameters)
        alpha = step.look.within(max(kept.norm, ahead.norm))
        restore(parameters, saved)
        shift(parameters, gradients(parameters), -alpha)
        again = gather_second(retain, parameters, ahead, state, step.combination, retain_first=False)
    return report(kept, ahead, state, 3, alpha, again.sketch.sub_(kept.sketch))


def exact(retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState, step: Ahead) -> Diagnostics:
    """g_r + u - alpha H_r u, with H_r u by double backward (alpha held constant).

    The shift that leads to u is cut by g_r's norm, alpha by the larger of both norms; alpha is logged. Needs losses
    that can be differentiated twice (attention by the math kernel). Memory: three gradients, a copy of the parameters,
    and a graph of one gradient.
    """
    clear(parameters)
    with sdpa_kernel(SDPBackend.MATH):
        with preserved(parameters):
            kept = gather_on_top(retain, parameters)
            plain = [g.clone() for g in gradients(parameters)]
            shift(parameters, plain, -step.look.within(kept.norm))
            clear(parameters)
            ahead = gather_on_top(forget, parameters)
        curved = _hessian_vector_product(retain, parameters)
    alpha = step.look.within(max(kept.norm, ahead.norm))
    correction = alpha * _sketch_of(curved, parameters)
    torch._foreach_add_(plain, curved, alpha=-alpha)
    (step.combination or WeightedSum()).combine(plain, gradients(parameters), state)
    return report(kept, ahead, state, 3, alpha, correction)


def _hessian_vector_product(objective: Objective, parameters: Parameters) -> list[torch.Tensor]:
    """H v for v in ``.grad``, averaged over processes."""
    vector = gradients(parameters)
    total: list[torch.Tensor] = []
    for loss in objective():
        slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        curved = [(s, v) for s, v in zip(slopes, vector, strict=True) if s.requires_grad]
        del slopes
        if not curved:
            continue
        outputs, along = zip(*curved, strict=True)
        products = torch.autograd.grad(outputs, parameters, along, materialize_grads=True)
        del outputs, curved, loss  # a graph of the gradient is as large as the gradient
        if total:
            torch._foreach_add_(total, products)
        else:
            total = list(products)
        del products
    total = total or [torch.zeros_like(p) for p in parameters]
    average(total)
    return total


def _sketch_of(tensors: list[torch.Tensor], parameters: Parameters) -> torch.Tensor:
    """The sketch that the tensors would have as gradients."""
    before = gradients(parameters)
    for p, tensor in zip(parameters, tensors, strict=True):
        p.grad = tensor
    result = sketch(parameters)
    for p, gradient in zip(parameters, before, strict=True):
        p.grad = gradient
    return result


def alternating(
    retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState, step: Ahead
) -> Diagnostics:
    """A fair coin: g_r + g_f(theta - 2 alpha g_r), or g_f + g_r(theta - 2 alpha g_f).

    Each order carries one half of the correction at twice the step, so their mean is the exact gradient up
    to O(alpha^2), at the price of a plain sum; where a gradient has grown and its shift is cut, the halves are of two
    alphas. A step that measures is a `chained` step, unbiased too.
    Memory: one gradient (two if they are combined), one copy of the parameters.
    """
    if step.measure:
        return chained(retain, forget, parameters, state, step)
    retain_first = coin(state)
    pair = (retain, forget) if retain_first else (forget, retain)
    first, second = one_after_the_other(*pair, parameters, state, step.combination, step.look, 2.0, retain_first)
    kept, ahead = (first, second) if retain_first else (second, first)
    return report(kept, ahead, state, 2, step.look.within(first.norm))


def coin(state: UpdateState) -> bool:
    """The step's fair coin, the same on every process and after a resume: heads is retain first."""
    return derive(state.seed, "coin", state.step) % 2 == 0


def first_order(
    retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState, step: Ahead
) -> Diagnostics:
    """g_r + u, an ablation: it loses H_r g_f, so it is NOT the alignment term. A measure costs one evaluation more.

    Memory: one gradient (two if they are combined), one copy of the parameters.
    """
    plain: Seen | None = None
    if step.measure:
        clear(parameters)
        plain = gather_on_top(forget, parameters)
    kept, ahead = one_after_the_other(retain, forget, parameters, state, step.combination, step.look)
    correction = None if plain is None else ahead.sketch - plain.sketch
    alpha = step.look.within(kept.norm)
    return report(kept, ahead, state, 2 if plain is None else 3, alpha, correction, plain)


Mode = Callable[[Objective, Objective, Parameters, UpdateState, Ahead], Diagnostics]
MODES: dict[str, Mode] = {
    "chained": chained,
    "exact": exact,
    "alternating": alternating,
    "first_order": first_order,
}
