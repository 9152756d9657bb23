"""The forget gradient alone: gradient ascent and its like, which look at nothing that is kept."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, clear
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import gather_on_top, report


@dataclass(frozen=True, config=STRICT)
class ForgetOnly:
    """g_f. One gradient evaluation a step; nothing of the retain side is in the log. Memory: one gradient."""

    name: Literal["forget_only"] = "forget_only"

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the forget gradient in ``.grad``; the retain objective is never called."""
        clear(parameters)
        return report(None, gather_on_top(forget, parameters), state, evaluations=1)
