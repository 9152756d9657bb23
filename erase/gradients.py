"""Gathers an objective's gradient over micro-batches and processes; shifts parameters and puts them back.

Parameters may be this process's rows of sharded ones, :class:`erase.sharded.Rows`: what is told of a gradient (sketch,
norm, loss) is of the whole one then too, and the same on every process.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from erase.inner_products import precise
from erase.protocols import Objective
from erase.sharded import Rows, is_sharded, lend_gradients, numel, take_gradients

Parameters = Sequence[nn.Parameter]
BUCKET_ELEMENTS = 1 << 24
"""Most elements that one all-reduce carries, 64 MB of float32, but for a tensor that is larger alone."""
SKETCH_WHOLE, SKETCH_STRIDE = 4096, 17
OTHER_STRIDES = (19, 23)
"""Where a row's length is a multiple of 17, every 17th entry would be of the same inputs in each row."""


@dataclass(frozen=True)
class Gathering:
    """How gradients are gathered for the time being; update rules need not know."""

    scale: float = 1.0
    """Factor on each loss in its backward pass, taken out of the gradient again: 1, or for fp16 a power of two, so
    that nothing is rounded."""
    sharded: bool = False
    """Whether each process has the gradients of its own rows."""


PLAIN = Gathering()
_GATHERING: ContextVar[Gathering] = ContextVar("gathering", default=PLAIN)


@contextmanager
def gathering(scale: float = 1.0, sharded: bool = False) -> Iterator[None]:
    """Gathers so while the body runs."""
    token = _GATHERING.set(Gathering(scale, sharded))
    try:
        yield
    finally:
        _GATHERING.reset(token)


def gather(objective: Objective, parameters: Parameters) -> float:
    """Adds the objective's gradient, averaged over processes, to ``.grad``, and returns the loss.

    A gradient that is already there must be the same on every process: it stays under the sum.
    """
    total, scale = 0.0, _GATHERING.get().scale
    if is_sharded(parameters) and not _GATHERING.get().sharded:
        raise RuntimeError("rows of sharded parameters need gathering(sharded=True)")
    _multiply(parameters, scale)
    lend_gradients(parameters)
    for loss in objective():
        (loss if scale == 1 else scale * loss).backward()
        total += loss.item()
    take_gradients(parameters)
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    average([p.grad for p in parameters if p.grad is not None and not isinstance(p, Rows)])
    _multiply(parameters, 1 / scale)
    return mean_over_processes(total, parameters[0].device)


@torch.no_grad()
def _multiply(parameters: Parameters, factor: float) -> None:
    there = [p.grad for p in parameters if p.grad is not None]
    if factor != 1 and there:
        torch._foreach_mul_(there, factor)


def world_size() -> int:
    """Processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over processes, with one all-reduce a bucket, not one a tensor.

    Memory: one bucket.
    """
    if world_size() == 1:
        return
    for bucket in buckets(tensors):
        flat = torch.cat([t.reshape(-1) for t in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for t, mean in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
            t.copy_(mean.view_as(t))


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, in groups of no more than ``BUCKET_ELEMENTS``, or of one that is larger."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def mean_over_processes(value: float, device: torch.device) -> float:
    """The mean of a number over processes."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.item() / world_size()


def over_shards(sums: Tensor) -> Tensor:
    """Sums of which each process has its rows' part, completed; as they are where each has all of them."""
    if _GATHERING.get().sharded:
        dist.all_reduce(sums)
    return sums


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

    Tensors of up to 4,096 entries are kept whole; of larger ones every 17th entry (:func:`sketch_stride`), times the
    root of the share that it stands for. It costs 1/17 of a large gradient and is the same on every process.
    """
    pieces, factors, first = [], [], []
    for p, gradient in zip(parameters, gradients(parameters), strict=True):
        flat, size = gradient.reshape(-1), numel(p)
        stride = sketch_stride(p)
        before = p.entries_before if isinstance(p, Rows) else 0
        pieces.append(flat[-before % stride :: stride])
        factors.append(math.sqrt(size / max(1, -(-size // stride))))
        first.append(-(-before // stride))
    whole = torch.cat(pieces)
    whole = whole.to(torch.promote_types(whole.dtype, torch.float32))
    parts = whole.split([piece.numel() for piece in pieces])
    torch._foreach_mul_(parts, factors)
    return _assembled(parts, first, parameters) if is_sharded(parameters) else whole


def sketch_stride(p: nn.Parameter) -> int:
    """Of how many entries a sketch has one: all of a small tensor's, else a prime that shares no factor with a row."""
    if numel(p) <= SKETCH_WHOLE:
        return 1
    row = math.prod(p.shape[1:])
    return next((stride for stride in (SKETCH_STRIDE, *OTHER_STRIDES) if row % stride), SKETCH_STRIDE)


def _assembled(parts: Sequence[Tensor], first: Sequence[int], parameters: Parameters) -> Tensor:
    """The sketch of which each process has parts, beginning at ``first`` of each parameter's span."""
    spans = sketch_spans(parameters)
    whole = parts[0].new_zeros(spans[-1].stop)
    for part, start, span in zip(parts, first, spans, strict=True):
        whole[span.start + start : span.start + start + part.numel()] = part
    dist.all_reduce(whole)
    return whole


def sketch_spans(parameters: Parameters) -> list[slice]:
    """Where each parameter's entries lie in :func:`sketch`."""
    lengths = [-(-numel(p) // sketch_stride(p)) for p in parameters]
    ends = list(itertools.accumulate(lengths))
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def parameter_norm(parameters: Parameters) -> float:
    """||theta|| over all parameters."""
    own = torch.stack([precise(torch.linalg.vector_norm(p.detach())) for p in parameters]).norm()
    return over_shards(own.square()).sqrt().item() if is_sharded(parameters) else own.item()


def gradient_norm(parameters: Parameters) -> Tensor:
    """||.grad|| over all parameters."""
    own = torch.nn.utils.get_total_norm(gradients(parameters))
    return over_shards(precise(own).square()).sqrt().to(own) if is_sharded(parameters) else own


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
