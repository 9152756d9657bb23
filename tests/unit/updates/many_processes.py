"""What each of several real processes (gloo, on the CPU) sees of the toolkit's averaging: run by :func:`run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from erase import gradients
from erase.protocols import Diagnostics, UpdateState
from tests.unit.updates.every_rule import RULES
from tests.unit.updates.opposed import Opposed
from tests.unit.updates.problems import Problem, flat_gradient, summed

COUNTS = (3, 300)
"""How many small tensors the all-reduces of every rule are counted with."""


def run(folder: Path, processes: int) -> list[dict[str, Any]]:
    """The report of each process."""
    mp.spawn(_work, args=(processes, str(folder)), nprocs=processes)
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def tensors(rank: int, count: int) -> list[Tensor]:
    """Small tensors of 6, 1 and 5 entries in turn, of several types, that differ between processes."""
    shapes = [(2, 3), (), (5,)]
    types = [torch.float32, torch.float64, torch.float16]
    return [torch.full(shapes[i % 3], float(i + 1 + 10 * rank), dtype=types[i % 3]) for i in range(count)]


def numbers(seen: Diagnostics, state: UpdateState) -> dict[str, float]:
    """What one update tells and remembers, where it does: none of it may depend on how many processes there are."""
    both = {**seen.numbers(), **{f"next {key}": value for key, value in vars(state).items()}}
    return {key: value for key, value in both.items() if isinstance(value, int | float)}


def _work(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    whole = gradients.BUCKET_ELEMENTS
    report: dict[str, Any] = {"calls": {count: _average(rank, count, whole)[0] for count in (1, 3, 300)}}
    report["bucketed_calls"], report["bucketed"] = _average(rank, 7, bucket=12)
    report["averaged"] = _average(rank, 7, whole)[1]
    report["mean"] = gradients.mean_over_processes(float(rank), torch.device("cpu"))
    report["world_size"] = gradients.world_size()
    report["on_top"] = _gather_on_top(rank)
    report["rules"] = {name: _update(name, rank, processes) for name in RULES}
    torch.save(report, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _update(name: str, rank: int, processes: int) -> dict[str, Any]:
    """One update on this process's share of the rows, and the all-reduces of one on few and on many tensors."""
    rule, step = RULES[name]
    problem, state = Opposed().share(rank, processes), UpdateState(step=step)
    seen = rule(problem.retain, problem.forget, problem.parameters, state)
    calls = []
    for count in COUNTS:
        many = _scattered(rank, count)
        with _counted() as made:
            many.run(rule, step)
        calls.append(len(made))
    return {
        "gradient": flat_gradient(problem.parameters),
        "numbers": numbers(seen, state),
        "sketches": [sketch for sketch in seen.sketches if sketch is not None],
        "calls": calls,
    }


def _scattered(rank: int, count: int) -> Problem:
    """So many tensors of two entries, and two losses that are curved and differ between processes."""
    parameters = [nn.Parameter(torch.full((2,), 0.01 * i, dtype=torch.float64)) for i in range(count)]
    return Problem(
        parameters,
        summed(parameters, lambda theta: torch.cosh(theta - rank).sum() / count),
        summed(parameters, lambda theta: -torch.cosh(theta - 0.5 * rank - 0.2).sum() / count),
    )


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Yields a list that gets an entry with each call of all_reduce; the call itself stays real."""
    made: list[int] = []
    real = dist.all_reduce

    def counting(tensor: Tensor) -> Any:
        made.append(tensor.numel())
        return real(tensor)

    try:
        dist.all_reduce = cast(Any, counting)
        yield made
    finally:
        dist.all_reduce = real


def _average(rank: int, count: int, bucket: int) -> tuple[int, list[Tensor]]:
    """So many tensors averaged, and how often that called all_reduce."""
    whole, averaged = gradients.BUCKET_ELEMENTS, tensors(rank, count)
    with _counted() as made:
        try:
            gradients.BUCKET_ELEMENTS = bucket
            gradients.average(averaged)
        finally:
            gradients.BUCKET_ELEMENTS = whole
    return len(made), averaged


def _gather_on_top(rank: int) -> list[float]:
    """A gradient already shared by all processes, under one that differs between them."""
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([100.0, 200.0])
    gradients.gather(summed([p], lambda theta: (rank + 1) * theta.sum()), [p])
    return flat_gradient([p]).tolist()
