"""The retain gradient alone: finetuning, and how an original or a retrained model is made."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, clear
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import gather_on_top, report


@dataclass(frozen=True, config=STRICT)
class RetainOnly:
    """g_r. One gradient evaluation a step; nothing of the forget side is in the log. Memory: one gradient."""

    name: Literal["retain_only"] = "retain_only"

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the retain gradient in ``.grad``; the forget objective is never called."""
        clear(parameters)
        return report(gather_on_top(retain, parameters), None, state, evaluations=1)
