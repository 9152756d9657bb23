"""Gradient surgery: each gradient loses what opposes the other."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.inner_products import Gram
from erase.updates.gram import GramRule, Weights


@dataclass(frozen=True, config=STRICT)
class PCGrad(GramRule):
    """PCGrad (Yu et al., NeurIPS 2020, algorithm 1): the sum of each gradient projected off the other.

    With c = <g_r, g_f> < 0: (1 - c / |g_r|^2) g_r + (1 - c / |g_f|^2) g_f; else the plain sum. Two objectives
    leave no order to choose. Non-conflicting. Memory: two gradients, no copy of the parameters.
    """

    name: Literal["pcgrad"] = "pcgrad"

    def weights(self, gram: Gram) -> Weights:
        """(1 - c/a, 1 - c/b) in conflict, (1, 1) elsewhere, and where a gradient is not finite."""
        if not gram.inner < 0:
            return 1.0, 1.0
        return 1 - gram.inner / gram.retain, 1 - gram.inner / gram.forget
