"""Conflict-averse gradient descent: near the mean, as good as can be for the worse objective."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.updates.gram import Gram, GramRule, Weights


@dataclass(frozen=True, config=STRICT)
class CAGrad(GramRule):
    """CAGrad (Liu et al., NeurIPS 2021, eq. 3): max over d of min_i <g_i, d>, |d - g_0| <= c |g_0|, g_0 the mean.

    Its dual minimises F(w) = <g_w, g_0> + c |g_0| |g_w| over g_w = w g_r + (1 - w) g_f, w in [0, 1]; then
    d = g_0 + c |g_0| g_w / |g_w|. F is convex, and its minimum is had in closed form. Non-conflicting for c >= 1.
    """

    name: Literal["cagrad"] = "cagrad"
    c: Annotated[float, Field(ge=0, description="radius around the mean, as a share of its norm; 0: the mean")] = 0.5

    def weights(self, gram: Gram) -> Weights:
        """(1/2 + s w, 1/2 + s (1 - w)) with s = c |g_0| / |g_w|; the mean where g_w vanishes."""
        scale = max(gram.retain, gram.forget)
        if scale == 0:
            return 0.5, 0.5
        a, inner, b = gram.retain / scale, gram.inner / scale, gram.forget / scale
        radius = self.c * math.sqrt(max(0.0, a + 2 * inner + b)) / 2
        share = self._minimum(a, inner, b, radius)
        length = math.sqrt(max(0.0, share**2 * a + 2 * share * (1 - share) * inner + (1 - share) ** 2 * b))
        reach = radius / length if length > 1e-12 else 0.0
        return 0.5 + reach * share, 0.5 + reach * (1 - share)

    @staticmethod
    def _minimum(a: float, inner: float, b: float, radius: float) -> float:
        """argmin over [0, 1] of F(w) = slope w + radius sqrt(N(w)), N(w) = q w^2 + p w + b, up to a constant.

        F' = 0 where N = radius^2 D / (4 (radius^2 q - slope^2)), D = 4 q b - p^2, on the side where N' opposes the
        slope; without such a point F falls towards one end.
        """
        slope, q, p = (a - b) / 2, a + b - 2 * inner, 2 * (inner - b)
        room = radius**2 * q - slope**2
        if room <= 0 or q <= 0:
            return 0.0 if slope > 0 else 1.0 if slope < 0 else 0.5
        squared = radius**2 * max(0.0, 4 * q * b - p**2) / (4 * room)
        turn = 2 * slope * math.sqrt(squared) / radius if radius > 0 else 0.0
        return min(1.0, max(0.0, (-p - turn) / (2 * q)))
