"""A step to forget, then a step to retain: the fixed order that SFRon and SalUn train in."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, clear
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import gather_on_top, report


@dataclass(frozen=True, config=STRICT)
class AlternatingSteps:
    """g_f at the first, third, ... step; g_r at the second, fourth, ... (SFRon, Huang et al., NeurIPS 2024).

    One gradient evaluation a step, so that the same budget makes twice the steps of a plain sum. Memory: one gradient.
    What a step does not look at, and the cosine, is not in its log.
    """

    name: Literal["alternating_steps"] = "alternating_steps"

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the gradient of this step's objective in ``.grad``."""
        clear(parameters)
        if state.step % 2 == 0:
            return report(None, gather_on_top(forget, parameters), state, evaluations=1)
        return report(gather_on_top(retain, parameters), None, state, evaluations=1)
