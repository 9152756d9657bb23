"""The plain sum of the two gradients: what every other rule is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.gradients import Parameters
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import one_after_the_other, report


@dataclass(frozen=True, config=STRICT)
class WeightedSum:
    """g_r + g_f, the weight being in g_f. Two gradient evaluations a step. Memory: one gradient."""

    name: Literal["weighted_sum"] = "weighted_sum"

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the sum in ``.grad``."""
        return report(*one_after_the_other(retain, forget, parameters, state), state, evaluations=2)

    @torch.no_grad()
    def combine(self, retain: Sequence[Tensor], forget: Sequence[Tensor], state: UpdateState) -> None:
        """Adds the retain gradient to the forget gradient, for a rule that has both already."""
        for r, f in zip(retain, forget, strict=True):
            f.add_(r)
