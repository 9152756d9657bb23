"""Unconflicting projection of gradients: the mean of the gradients, each projected onto the dual cone."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.inner_products import Gram
from erase.updates.gram import GramRule, Weights
from erase.updates.pcgrad import PCGrad


@dataclass(frozen=True, config=STRICT)
class UPGrad(GramRule):
    """UPGrad (Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, eq. 6).

    Of two gradients, each one's projection onto the cone of non-conflicting directions is its projection off the
    other, so that this is half of PCGrad. Non-conflicting. Memory: two gradients, no copy of the parameters.
    """

    name: Literal["upgrad"] = "upgrad"

    def weights(self, gram: Gram) -> Weights:
        """Half of PCGrad's."""
        retain, forget = PCGrad().weights(gram)
        return retain / 2, forget / 2
