"""One-sided projection: forgetting gives way to retaining, never the other way round."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.inner_products import Gram
from erase.updates.gram import GramRule, Weights


@dataclass(frozen=True, config=STRICT)
class GradientProjection(GramRule):
    """g_r + g_f less the part of g_f that opposes g_r, as A-GEM (Chaudhry et al., ICLR 2019, eq. 11) spares past tasks.

    With c = <g_r, g_f> < 0: g_r + g_f - (c / |g_r|^2) g_r; else the plain sum. It never opposes g_r; it may oppose g_f.
    Memory: two gradients, no copy of the parameters.
    """

    name: Literal["gradient_projection"] = "gradient_projection"

    def weights(self, gram: Gram) -> Weights:
        """(1 - c/a, 1) in conflict, (1, 1) elsewhere."""
        return (1 - gram.inner / gram.retain, 1.0) if gram.inner < 0 else (1.0, 1.0)
