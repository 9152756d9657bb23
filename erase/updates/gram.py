"""What rules share that combine the two gradients by weights taken from their 2x2 Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.gradients import Parameters, over_shards, precise
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import one_after_the_other, report

CHUNK = {"cpu": 1 << 16}
"""Entries of each gradient that are taken into float64 at a time, by kind of device: what fits a core's cache."""
LARGE_CHUNK = 1 << 22
"""The same elsewhere, where a call costs more than its memory: 64 MB for both."""

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
    """The Gram matrix of two gradients, a chunk at a time; it needs no copy of either.

    Where each process has the gradients of its rows, it is still that of the whole ones.
    """
    size = CHUNK.get(retain[0].device.type, LARGE_CHUNK)
    total = precise(retain[0].new_zeros(3))
    for r, f in zip(_chunks(retain, size), _chunks(forget, size), strict=True):
        total += torch.stack([torch.dot(r, r), torch.dot(r, f), torch.dot(f, f)])
    return Gram(*over_shards(total).tolist())


def _chunks(gradient: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """A gradient's entries in order, in float64, at most ``size`` at a time."""
    held: list[Tensor] = []
    room = size
    for part in (part for tensor in gradient for part in tensor.reshape(-1).split(size)):
        if part.numel() > room:
            yield precise(torch.cat(held))
            held, room = [], size
        held.append(part)
        room -= part.numel()
    if held:
        yield precise(torch.cat(held))


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
        torch._foreach_mul_(list(forget), w_forget)
        torch._foreach_add_(list(forget), list(retain), alpha=w_retain)

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the combination in ``.grad``."""
        kept, ahead = one_after_the_other(retain, forget, parameters, state, self)
        return report(kept, ahead, state, evaluations=2)
