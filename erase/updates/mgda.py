"""Multiple gradient descent: the shortest convex combination."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.inner_products import Gram
from erase.updates.gram import GramRule, Weights


@dataclass(frozen=True, config=STRICT)
class MGDA(GramRule):
    """MGDA (Desideri 2012; Sener & Koltun, NeurIPS 2018, eq. 4): min over w in [0, 1] of |w g_r + (1 - w) g_f|.

    w = clip((b - c) / (a + b - 2c), 0, 1), with a = |g_r|^2, b = |g_f|^2, c = <g_r, g_f>. It follows the shorter
    gradient: with a teacher as the retain loss, whose gradient is 0 at the start, it stands still. Non-conflicting.
    Memory: two gradients, no copy of the parameters.
    """

    name: Literal["mgda"] = "mgda"

    def weights(self, gram: Gram) -> Weights:
        """(w, 1 - w); the mean of two equal gradients."""
        retain, forget = max(0.0, gram.forget - gram.inner), max(0.0, gram.retain - gram.inner)
        total = retain + forget
        return (retain / total, forget / total) if total > 0 else (0.5, 0.5)
