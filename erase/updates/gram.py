"""What rules share that combine the two gradients by weights taken from their 2x2 Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.gradients import Parameters
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import one_after_the_other, report

CHUNK = 1 << 20
"""Entries that an inner product takes into float64 at a time: 16 MB for both."""

Weights = tuple[float, float]
"""Factors on g_r and on g_f."""


@dataclass(frozen=True)
class Gram:
    """The gradients' squared norms and their inner product, over every entry, in float64."""

    retain: float
    """|g_r|^2"""
    inner: float
    """<g_r, g_f>"""
    forget: float
    """|g_f|^2"""

    @property
    def cosine(self) -> float:
        """The cosine of the two, -1 to 1; 0 if either vanishes."""
        scale = math.sqrt(self.retain) * math.sqrt(self.forget)
        return max(-1.0, min(1.0, self.inner / scale)) if scale > 0 else 0.0


@torch.no_grad()
def gram_of(retain: Sequence[Tensor], forget: Sequence[Tensor]) -> Gram:
    """The Gram matrix of two gradients, tensor by tensor; it needs no copy of either."""
    total = torch.zeros(3, dtype=torch.float64, device=retain[0].device)
    for left, right in zip(retain, forget, strict=True):
        for l_part, r_part in zip(left.reshape(-1).split(CHUNK), right.reshape(-1).split(CHUNK), strict=True):
            r, f = l_part.double(), r_part.double()
            total += torch.stack([torch.dot(r, r), torch.dot(r, f), torch.dot(f, f)])
            del r, f  # before the next pair is made
    return Gram(*total.tolist())


class GramRule:
    """w_r g_r + w_f g_f with weights that depend on the Gram matrix alone.

    Two gradient evaluations a step. Memory: two gradients, no copy of the parameters.
    """

    def weights(self, gram: Gram) -> Weights:
        """The two factors; finite for every Gram matrix whose entries neither overflow nor underflow."""
        raise NotImplementedError

    @property
    def buffers(self) -> int:
        """The other gradient."""
        return 1

    @torch.no_grad()
    def combine(self, retain: Sequence[Tensor], forget: Sequence[Tensor], state: UpdateState) -> None:
        """Puts the combination in place of ``forget``."""
        w_retain, w_forget = self.weights(gram_of(retain, forget))
        for r, f in zip(retain, forget, strict=True):
            f.mul_(w_forget).add_(r, alpha=w_retain)

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the combination in ``.grad``."""
        kept, ahead = one_after_the_other(retain, forget, parameters, 0.0, state, self)
        return report(kept, ahead, state, evaluations=2)
