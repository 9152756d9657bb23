"""Nash bargaining between forgetting and retaining."""

from __future__ import annotations

import math
from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.inner_products import Gram
from erase.updates.gram import GramRule, Weights

FLOOR = 1e-12
"""Least 1 + cosine: below, what two opposed gradients leave is rounding, and there is nothing to bargain for."""


@dataclass(frozen=True, config=STRICT)
class Nash(GramRule):
    """MUNBa (Wu & Harandi, ICCV 2025): the bargaining solution, max of log <g_r, d> + log <g_f, d> in a ball.

    Its weights solve G w = 1 / w for the Gram matrix G: w_r = 1 / (|g_r| sqrt(1 + cos)), w_f likewise. Both gradients
    count as directions alone, and the result has the norm sqrt(2), or 0 if they oppose each other wholly. Norms from
    1e-12 to 1e12 are the same to it, as nothing is added to any denominator. A gradient that vanishes leaves the
    bargain, and the other's direction is the result. Non-conflicting.
    Memory: two gradients, no copy of the parameters.
    """

    name: Literal["nash"] = "nash"

    def weights(self, gram: Gram) -> Weights:
        """(1 / (|g_r| sqrt(1 + cos)), 1 / (|g_f| sqrt(1 + cos))); 0 for what vanishes, and for both if opposed."""
        if 1 + gram.cosine < FLOOR:
            return 0.0, 0.0
        share = math.sqrt(max(FLOOR, 1 + gram.cosine))
        retain, forget = math.sqrt(gram.retain) * share, math.sqrt(gram.forget) * share
        return 1 / retain if retain > 0 else 0.0, 1 / forget if forget > 0 else 0.0
