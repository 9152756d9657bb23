"""Inner products of two gradients over every entry, in float64, a chunk at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = {"cpu": 1 << 16}
"""Entries of each gradient that are taken into float64 at a time, by kind of device: what fits a core's cache."""
LARGE_CHUNK = 1 << 22
"""The same elsewhere, where a call costs more than its memory: 64 MB for both."""


@dataclass(frozen=True)
class Gram:
    """The 2x2 Gram matrix: both squared norms and the inner product."""

    retain: float
    """|g_r|^2"""
    inner: float
    """<g_r, g_f>"""
    forget: float
    """|g_f|^2"""

    @property
    def cosine(self) -> float:
        """The cosine of the two, -1 to 1; 0 if either vanishes, NaN if either is not finite."""
        scale = math.sqrt(self.retain) * math.sqrt(self.forget)
        if not math.isfinite(scale):
            return math.nan
        return max(-1.0, min(1.0, self.inner / scale)) if scale > 0 else 0.0


@torch.no_grad()
def inner_products(retain: Sequence[Tensor], forget: Sequence[Tensor]) -> Tensor:
    """|g_r|^2, <g_r, g_f> and |g_f|^2 as a tensor of three, of what this process has; needs no copy of either."""
    size = CHUNK.get(retain[0].device.type, LARGE_CHUNK)
    total = precise(retain[0].new_zeros(3))
    for r, f in zip(_chunks(retain, size), _chunks(forget, size), strict=True):
        total += torch.stack([torch.dot(r, r), torch.dot(r, f), torch.dot(f, f)])
    return total


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


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float64; on the CPU where its device has no such numbers, as Apple's GPUs."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def gram_of_sketches(left: Tensor, right: Tensor) -> Gram:
    """Of two vectors that every process has whole."""
    return Gram(*inner_products([left], [right]).tolist())


def cosine(left: Tensor, right: Tensor) -> float:
    """The cosine of two sketches; 0 if either vanishes, NaN if either is not finite."""
    return gram_of_sketches(left, right).cosine
