"""What two-objective rules share: one objective after the other on the same gradient buffer, and the telemetry."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from erase.gradients import Parameters, clear, cosine, gather, gradients, preserved, shift, sketch
from erase.protocols import Diagnostics, Objective, UpdateState


@dataclass(frozen=True)
class Seen:
    """An objective's loss and the sketch of its gradient."""

    loss: float
    sketch: Tensor


def gather_on_top(objective: Objective, parameters: Parameters, below: Tensor | None = None) -> Seen:
    """Adds the objective's gradient to ``.grad``; ``below`` is the sketch of what lay there already."""
    loss = gather(objective, parameters)
    total = sketch(parameters)
    return Seen(loss, total if below is None else total - below)


def one_after_the_other(first: Objective, second: Objective, parameters: Parameters, step: float) -> tuple[Seen, Seen]:
    """Leaves g_first(theta) + g_second(theta - step * g_first) in ``.grad``; theta is restored.

    Memory: one gradient and, unless the step is 0, one copy of the parameters.
    """
    clear(parameters)
    if step == 0:
        seen = gather_on_top(first, parameters)
        return seen, gather_on_top(second, parameters, seen.sketch)
    with preserved(parameters) as saved:
        seen = gather_on_top(first, parameters)
        shift(parameters, saved, gradients(parameters), -step)
        return seen, gather_on_top(second, parameters, seen.sketch)


def report(
    retain: Seen,
    forget: Seen,
    state: UpdateState,
    evaluations: int,
    alpha: float | None = None,
    correction: float | None = None,
) -> Diagnostics:
    """The step's diagnostics; the state learns the norms and counts the step."""
    state.retain_norm, state.forget_norm = retain.sketch.norm().item(), forget.sketch.norm().item()
    state.step += 1
    return Diagnostics(
        retain_loss=retain.loss,
        forget_loss=forget.loss,
        retain_norm=state.retain_norm,
        forget_norm=state.forget_norm,
        cosine=cosine(retain.sketch, forget.sketch),
        evaluations=evaluations,
        alpha=alpha,
        correction=correction,
    )


def ratio(part: Tensor, whole: Tensor) -> float:
    """||part|| / ||whole||; 0 if the whole vanishes."""
    size = whole.norm().item()
    return part.norm().item() / size if size > 0 else 0.0
