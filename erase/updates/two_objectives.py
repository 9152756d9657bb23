"""What two-objective rules share: one objective after the other on the same gradient buffer, and the telemetry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from erase.gradients import Parameters, clear, gather, gradients, preserved, shift, sketch
from erase.inner_products import cosine
from erase.protocols import Diagnostics, Objective, UpdateState


class Combination(Protocol):
    """What may stand for the sum of two gradients."""

    def combine(self, retain: Sequence[Tensor], forget: Sequence[Tensor], state: UpdateState) -> None:
        """Puts the combination in place of ``forget``; what becomes of ``retain`` does not matter."""
        ...


@dataclass(frozen=True)
class Seen:
    """An objective's loss and the sketch of its gradient."""

    loss: float
    sketch: Tensor

    @property
    def norm(self) -> float:
        """The gradient's norm, as the sketch has it."""
        return self.sketch.norm().item()


@dataclass(frozen=True)
class LookAhead:
    """How far a step shifts the parameters along a gradient before it evaluates the other objective."""

    alpha: float = 0.0
    """Parameter units per unit gradient."""
    longest: float = math.inf
    """Parameter units that alpha times a gradient may have."""

    def within(self, norm: float) -> float:
        """alpha for a gradient of this norm: less than was chosen where the gradient has grown since then."""
        return min(self.alpha, self.longest / norm) if norm > 0 else 0.0 if math.isinf(self.alpha) else self.alpha


def gather_on_top(objective: Objective, parameters: Parameters, below: Tensor | None = None) -> Seen:
    """Adds the objective's gradient to ``.grad``; ``below`` is the sketch of what lay there already."""
    loss = gather(objective, parameters)
    total = sketch(parameters)
    return Seen(loss, total if below is None else total.sub_(below))


def gather_second(
    objective: Objective,
    parameters: Parameters,
    first: Seen,
    state: UpdateState,
    combination: Combination | None,
    retain_first: bool,
) -> Seen:
    """Adds the second gradient to the first, on the same buffer; or combines them, which takes a buffer each."""
    if combination is None:
        return gather_on_top(objective, parameters, first.sketch)
    aside = gradients(parameters)
    clear(parameters)
    second = gather_on_top(objective, parameters)
    own = gradients(parameters)
    retain, forget = (aside, own) if retain_first else (own, aside)
    combination.combine(retain, forget, state)
    for p, combined in zip(parameters, forget, strict=True):
        p.grad = combined
    return second


def one_after_the_other(
    first: Objective,
    second: Objective,
    parameters: Parameters,
    state: UpdateState,
    combination: Combination | None = None,
    look: LookAhead = LookAhead(),
    times: float = 1.0,
    retain_first: bool = True,
) -> tuple[Seen, Seen]:
    """Leaves g_first(theta) + g_second(theta - times * alpha * g_first), or their combination, in ``.grad``.

    Theta is restored. Memory: one gradient, or two with a combination; and, unless alpha is 0, one copy of the
    parameters.
    """
    clear(parameters)
    if look.alpha == 0:
        seen = gather_on_top(first, parameters)
        return seen, gather_second(second, parameters, seen, state, combination, retain_first)
    with preserved(parameters):
        seen = gather_on_top(first, parameters)
        shift(parameters, gradients(parameters), -times * look.within(seen.norm))
        return seen, gather_second(second, parameters, seen, state, combination, retain_first)


def report(
    retain: Seen | None,
    forget: Seen | None,
    state: UpdateState,
    evaluations: int,
    alpha: float | None = None,
    correction: Tensor | None = None,
    plain: Seen | None = None,
) -> Diagnostics:
    """The step's diagnostics; the state learns the norms and counts the step. ``None``: not looked at.

    ``correction`` is a sketch, told as a share of the sum of the retain gradient and ``plain``, by default ``forget``.
    """
    retain_norm, forget_norm = (None if seen is None else seen.norm for seen in (retain, forget))
    state.retain_norm = state.retain_norm if retain_norm is None else retain_norm
    state.forget_norm = state.forget_norm if forget_norm is None else forget_norm
    both = None if retain is None or forget is None else cosine(retain.sketch, forget.sketch)
    state.step += 1
    state.cosines += int(both is not None)
    state.conflicts += int(both is not None and both < 0)
    against, part_and_whole = plain or forget, None
    if correction is not None and retain is not None and against is not None:
        part_and_whole = correction, retain.sketch + against.sketch
    return Diagnostics(
        retain_loss=None if retain is None else retain.loss,
        forget_loss=None if forget is None else forget.loss,
        retain_norm=retain_norm,
        forget_norm=forget_norm,
        cosine=both,
        evaluations=evaluations,
        alpha=alpha,
        correction=None if part_and_whole is None else ratio(*part_and_whole),
        correction_sketches=part_and_whole,
        sketches=(None if retain is None else retain.sketch, None if forget is None else forget.sketch),
    )


def ratio(part: Tensor, whole: Tensor) -> float:
    """||part|| / ||whole||; 0 if the whole vanishes, NaN if it is not finite."""
    size = whole.norm().item()
    if not math.isfinite(size):
        return math.nan
    return part.norm().item() / size if size > 0 else 0.0
