"""What each of two real processes (gloo, on the CPU) sees of the toolkit's averaging: run by :func:`run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from erase import gradients
from erase.protocols import Diagnostics, UpdateRule, UpdateState
from erase.updates import LUR, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from tests.unit.updates.problems import HEADS, ROWS, TAILS, Network, Problem, flat_gradient, summed

PROCESSES = 2
RULES: dict[str, tuple[UpdateRule, int]] = {
    "weighted_sum": (WeightedSum(), 0),
    "chained": (LUR(mode="chained", alpha=AbsoluteAlpha(value=0.1)), 0),
    "exact": (LUR(mode="exact", alpha=AbsoluteAlpha(value=0.1)), 0),
    "first_order": (LUR(mode="first_order", alpha=AbsoluteAlpha(value=0.1)), HEADS),
    "heads": (LUR(mode="alternating", alpha=AbsoluteAlpha(value=0.1)), HEADS),
    "tails": (LUR(mode="alternating", alpha=AbsoluteAlpha(value=0.1)), TAILS),
}
"""Each rule, and the step that it is tried at."""


def run(folder: Path) -> list[dict[str, Any]]:
    """The report of each process."""
    mp.spawn(_work, args=(str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def tensors(rank: int, count: int) -> list[Tensor]:
    """Small tensors of 6, 1 and 5 entries in turn, of several types, that differ between processes."""
    shapes = [(2, 3), (), (5,)]
    types = [torch.float32, torch.float64, torch.float16]
    return [torch.full(shapes[i % 3], float(i + 1 + 10 * rank), dtype=types[i % 3]) for i in range(count)]


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    whole = gradients.BUCKET_ELEMENTS
    report: dict[str, Any] = {"calls": {count: _average(rank, count, whole)[0] for count in (1, 3, 300)}}
    report["bucketed_calls"], report["bucketed"] = _average(rank, 7, bucket=12)
    report["averaged"] = _average(rank, 7, whole)[1]
    report["mean"] = gradients.mean_over_processes(float(rank), torch.device("cpu"))
    report["world_size"] = gradients.world_size()
    report["on_top"] = _gather_on_top(rank)
    report["gradients"], report["diagnostics"] = {}, {}
    for name, (rule, step) in RULES.items():
        problem = half(rank)
        seen = rule(problem.retain, problem.forget, problem.parameters, UpdateState(step=step))
        report["gradients"][name] = flat_gradient(problem.parameters)
        report["diagnostics"][name] = averages(seen)
    torch.save(report, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def averages(seen: Diagnostics) -> list[float]:
    """What must not depend on how many processes there are."""
    return [seen.retain_loss, seen.forget_loss, seen.retain_norm, seen.forget_norm, seen.cosine]


def half(rank: int) -> Problem:
    """This process's half of the network's rows, each loss the mean over that half."""
    network = Network()
    parameters = network.parameters()
    size = ROWS // PROCESSES
    part = slice(rank * size, (rank + 1) * size)
    return Problem(
        parameters,
        summed(parameters, lambda theta: PROCESSES * network.retain(theta, part)),
        summed(parameters, lambda theta: PROCESSES * network.forget(theta, part)),
    )


def _average(rank: int, count: int, bucket: int) -> tuple[int, list[Tensor]]:
    """So many tensors averaged, and how often that called all_reduce; the call itself stays real."""
    calls, real, whole, averaged = 0, dist.all_reduce, gradients.BUCKET_ELEMENTS, tensors(rank, count)

    def counting(tensor: Tensor) -> Any:
        nonlocal calls
        calls += 1
        return real(tensor)

    try:
        dist.all_reduce, gradients.BUCKET_ELEMENTS = cast(Any, counting), bucket
        gradients.average(averaged)
    finally:
        dist.all_reduce, gradients.BUCKET_ELEMENTS = real, whole
    return calls, averaged


def _gather_on_top(rank: int) -> list[float]:
    """A gradient already shared by all processes, under one that differs between them."""
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([100.0, 200.0])
    gradients.gather(summed([p], lambda theta: (rank + 1) * theta.sum()), [p])
    return flat_gradient([p]).tolist()
