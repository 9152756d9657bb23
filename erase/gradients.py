"""Gathers an objective's gradient over micro-batches and processes; shifts parameters and puts them back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from erase.protocols import Objective

Parameters = Sequence[nn.Parameter]
BUCKET_ELEMENTS = 1 << 26
"""Most elements that one all-reduce carries: 256 MB of float32."""
SKETCH_WHOLE, SKETCH_STRIDE = 4096, 17


def gather(objective: Objective, parameters: Parameters) -> float:
    """Adds the objective's gradient, averaged over processes, to ``.grad``, and returns the loss.

    A gradient that is already there must be the same on every process: it stays under the sum.
    """
    total = 0.0
    for loss in objective():
        loss.backward()
        total += loss.item()
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    average(gradients(parameters))
    return mean_over_processes(total, parameters[0].device)


def world_size() -> int:
    """Processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over processes, with one all-reduce a bucket, not one a tensor."""
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    for index, tensor in enumerate(tensors):
        bucket.append(tensor)
        full = sum(t.numel() for t in bucket) >= BUCKET_ELEMENTS
        if full or index == len(tensors) - 1:
            flat = torch.cat([t.reshape(-1) for t in bucket])
            dist.all_reduce(flat)
            flat /= world_size()
            for t, mean in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                t.copy_(mean.view_as(t))
            bucket = []


def mean_over_processes(value: float, device: torch.device) -> float:
    """The mean of a number over processes."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.item() / world_size()


def gradients(parameters: Parameters) -> list[Tensor]:
    """Each parameter's ``.grad``; a missing one is an error."""
    found = [p.grad for p in parameters if p.grad is not None]
    if len(found) != len(parameters):
        raise RuntimeError(f"{len(parameters) - len(found)} of {len(parameters)} parameters have no gradient")
    return found


def clear(parameters: Parameters) -> None:
    """Drops every gradient."""
    for p in parameters:
        p.grad = None


@torch.no_grad()
def sketch(parameters: Parameters) -> Tensor:
    """A vector whose inner products estimate those of the whole gradient; exact for small tensors.

    Tensors of up to 4,096 entries are kept whole; of larger ones every 17th entry, times the root of the
    share that it stands for. It costs 1/17 of a large gradient and is the same on every process.
    """
    pieces, factors = [], []
    for gradient in gradients(parameters):
        flat = gradient.reshape(-1)
        kept = flat[::SKETCH_STRIDE] if flat.numel() > SKETCH_WHOLE else flat
        pieces.append(kept)
        factors.append(math.sqrt(flat.numel() / max(1, kept.numel())))
    whole = torch.cat(pieces)
    whole = whole.to(torch.promote_types(whole.dtype, torch.float32))
    torch._foreach_mul_(whole.split([piece.numel() for piece in pieces]), factors)
    return whole


def sketch_spans(parameters: Parameters) -> list[slice]:
    """Where each parameter's entries lie in :func:`sketch`."""
    lengths = [n if n <= SKETCH_WHOLE else -(-n // SKETCH_STRIDE) for n in (p.numel() for p in parameters)]
    ends = list(itertools.accumulate(lengths))
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def parameter_norm(parameters: Parameters) -> float:
    """||theta|| over all parameters."""
    return torch.stack([torch.linalg.vector_norm(p.detach()).double() for p in parameters]).norm().item()


def cosine(left: Tensor, right: Tensor) -> float:
    """The cosine of two sketches; 0 if either vanishes, NaN if either is not finite."""
    left, right = left.double(), right.double()
    scale = (left.norm() * right.norm()).item()
    if not math.isfinite(scale):
        return math.nan
    return max(-1.0, min(1.0, torch.dot(left, right).item() / scale)) if scale > 0 else 0.0


@torch.no_grad()
def shift(parameters: Parameters, direction: Sequence[Tensor], step: float) -> None:
    """Moves the parameters by ``step * direction``, in place."""
    torch._foreach_add_([p.data for p in parameters], list(direction), alpha=step)


@torch.no_grad()
def restore(parameters: Parameters, saved: Sequence[Tensor]) -> None:
    """Puts ``saved`` back, bit for bit."""
    torch._foreach_copy_([p.data for p in parameters], list(saved))


@contextmanager
def preserved(parameters: Parameters) -> Iterator[list[Tensor]]:
    """Yields a copy of the parameters and puts it back at the end, bit for bit, also when the body raises."""
    saved = [p.detach().clone() for p in parameters]
    try:
        yield saved
    finally:
        restore(parameters, saved)
