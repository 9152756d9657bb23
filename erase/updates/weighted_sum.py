"""The plain sum of the two gradients: what every other rule is compared with."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import one_after_the_other, report


@dataclass(frozen=True, config=STRICT)
class WeightedSum:
    """g_r + g_f. Two gradient evaluations a step; one gradient of memory."""

    name: Literal["weighted_sum"] = "weighted_sum"

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the sum in ``.grad``."""
        return report(*one_after_the_other(retain, forget, parameters, 0.0), state, evaluations=2)
