"""Conflict-averse gradient descent: near the mean, as good as can be for the worse objective."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.inner_products import Gram
from erase.updates.gram import GramRule, Weights

FLOOR = 1e-12
"""Least squared sine of the angle between two gradients that do not count as parallel."""


@dataclass(frozen=True, config=STRICT)
class CAGrad(GramRule):
    """CAGrad (Liu et al., NeurIPS 2021, eq. 3): max over d of min_i <g_i, d>, |d - g_0| <= c |g_0|, g_0 the mean.

    Its dual minimises F(w) = <g_w, g_0> + c |g_0| |g_w| over g_w = w g_r + (1 - w) g_f, w in [0, 1]; then
    d = g_0 + c |g_0| g_w / |g_w|. F is convex, and its minimum is had in closed form. Non-conflicting for c >= 1:
    two gradients that oppose each other wholly then give zero. Memory: two gradients, no copy of the parameters.
    """

    name: Literal["cagrad"] = "cagrad"
    c: Annotated[float, Field(ge=0, description="radius around the mean, as a share of its norm; 0: the mean")] = 0.5

    def weights(self, gram: Gram) -> Weights:
        """(1/2 + s w, 1/2 + s (1 - w)) with s = c |g_0| / |g_w|; the mean where a gradient vanishes."""
        scale = max(gram.retain, gram.forget)
        if min(gram.retain, gram.forget) == 0 or self.c == 0:
            return 0.5, 0.5
        a, inner, b = gram.retain / scale, gram.inner / scale, gram.forget / scale
        radius = self.c * math.sqrt(max(0.0, a + 2 * inner + b)) / 2
        retain, forget, length = self._minimum(a, inner, b, radius)
        if length == 0:
            return (0.0, 0.0) if self.c >= 1 else (0.5, 0.5)
        return 0.5 + radius / length * retain, 0.5 + radius / length * forget

    def _minimum(self, a: float, inner: float, b: float, radius: float) -> tuple[float, float, float]:
        """w, 1 - w and |g_w| at the minimum of F, each without the others' rounding.

        With D = a b - inner^2, q = |g_r - g_f|^2 and R = (c^2 - 1) |g_0|^2 q + D, F' = 0 where |g_w| = c |g_0| k for
        k = sqrt(D / R), on the side where the slope is opposed; without such a point F falls towards one end.
        """
        slope, q, det = (a - b) / 2, a + b - 2 * inner, a * b - inner**2
        room = (self.c**2 - 1) * (a + 2 * inner + b) / 4 * q + det
        if q > 0 and room > 0 and det > FLOOR * a * b:
            k = math.sqrt(det / room)
            retain, forget = (b - inner - slope * k) / q, (a - inner + slope * k) / q
            if min(retain, forget) > 0:
                return retain, forget, radius * k
            slope = forget - retain
        elif inner < 0 and self.c >= 1:
            return 0.5, 0.5, 0.0
        if slope == 0:
            return 0.5, 0.5, math.sqrt(max(0.0, a + 2 * inner + b)) / 2
        return (0.0, 1.0, math.sqrt(b)) if slope > 0 else (1.0, 0.0, math.sqrt(a))
