"""A step to forget, then steps to retain: the fixed order that SFRon, SalUn and SCRUB train in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, clear
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import gather_on_top, report


@dataclass(frozen=True, config=STRICT)
class AlternatingSteps:
    """g_f at the first step, g_r at the next `retain_steps`, and so on (SFRon, Huang et al., NeurIPS 2024).

    One gradient evaluation a step, so that the same budget makes twice the steps of a plain sum. Memory: one gradient.
    What a step does not look at, and the cosine, is not in its log, but for the probes'.
    """

    name: Literal["alternating_steps"] = "alternating_steps"
    retain_steps: Annotated[
        int, Field(ge=1, description="retain steps after each forget step; SFRon: 5; SalUn and RL: n_retain / n_forget")
    ] = 1
    forget_until: Annotated[
        int | None, Field(ge=0, description="from this step on all steps retain, as SCRUB ends; null: never")
    ] = None

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the gradient of this step's objective in ``.grad``."""
        clear(parameters)
        if self.forgets(state.step):
            return report(None, gather_on_top(forget, parameters), state, evaluations=1)
        return report(gather_on_top(retain, parameters), None, state, evaluations=1)

    def looked(self, step: int) -> tuple[int, int]:
        """How many of the steps before this one were to retain, and how many to forget."""
        last = step if self.forget_until is None else min(step, self.forget_until)
        forgot = -(-last // (1 + self.retain_steps))
        return step - forgot, forgot

    def forgets(self, step: int) -> bool:
        """Whether a step, counted from 0, is one to forget."""
        return step % (1 + self.retain_steps) == 0 and (self.forget_until is None or step < self.forget_until)
