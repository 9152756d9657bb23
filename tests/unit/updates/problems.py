"""Two-objective problems that update rules are tried on: one solved by hand, one non-linear, one with a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from erase.protocols import Diagnostics, Objective, UpdateRule, UpdateState
from erase.updates.lur import coin

Loss = Callable[[Tensor], Tensor]
"""A scalar function of all parameters as one flat vector."""
ROWS, INPUTS, HIDDEN, CLASSES = 12, 3, 4, 3
HEADS = next(step for step in range(2, 99) if coin(UpdateState(step=step)))
TAILS = next(step for step in range(2, 99) if not coin(UpdateState(step=step)))
"""Steps of seed 0 at which `alternating` takes the retain step first, and the forget step first."""
EVALUATIONS = {"chained": 3, "exact": 3, "alternating": 2, "first_order": 2}
BRANCHES = [
    ("chained", HEADS),
    ("exact", HEADS),
    ("first_order", HEADS),
    ("alternating", HEADS),
    ("alternating", TAILS),
]
"""LUR's modes, each with a step to try it at; `alternating` has two ways to go."""
FAILURES = [(mode, step, nth) for mode, step in BRANCHES for nth in range(1, EVALUATIONS[mode] + 1)]
"""Each evaluation of each branch, by mode, step and number."""


class BrokenError(Exception):
    """A loss that fails."""


@dataclass
class Problem:
    """Parameters and two objectives on them."""

    parameters: list[nn.Parameter]
    retain: Objective
    forget: Objective

    def run(self, rule: UpdateRule, step: int = 0) -> Diagnostics:
        """One update from a fresh state that stands at ``step``."""
        return rule(self.retain, self.forget, self.parameters, UpdateState(step=step))

    def gradient(self, rule: UpdateRule, step: int = 0) -> Tensor:
        """What one update leaves in ``.grad``, as one vector."""
        self.run(rule, step)
        return flat_gradient(self.parameters)

    @torch.no_grad()
    def descend(self, rate: float) -> None:
        """One step of gradient descent along ``.grad``."""
        for p in self.parameters:
            p -= rate * p.grad


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """A copy of all gradients, as one vector."""
    return torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])


def flat(parameters: list[nn.Parameter]) -> Tensor:
    """All parameters as one vector that autograd sees through."""
    return torch.cat([p.reshape(-1) for p in parameters])


def summed(parameters: list[nn.Parameter], *losses: Loss) -> Objective:
    """An objective whose micro-batches have these losses."""

    def objective() -> Iterator[Tensor]:
        for loss in losses:
            yield loss(flat(parameters))

    return objective


def bowls() -> Problem:
    """At theta = (1, 2): L_r = (2x^2 + y^2)/2 and L_f = (3(x-2)^2 + 4(y-1)^2)/2.

    g_r = (2x, y) = (2, 2), H_r = diag(2, 1); g_f = (3(x-2), 4(y-1)) = (-3, 4), H_f = diag(3, 4).
    """
    parameters = [nn.Parameter(torch.tensor([1.0], dtype=torch.float64)), nn.Parameter(torch.tensor([2.0]).double())]
    return Problem(
        parameters,
        summed(parameters, lambda t: (2 * t[0] ** 2 + t[1] ** 2) / 2),
        summed(parameters, lambda t: (3 * (t[0] - 2) ** 2 + 4 * (t[1] - 1) ** 2) / 2),
    )


class Network:
    """A tanh network on random rows; retain is cross-entropy, forget 0.7 times a log-cosh regression elsewhere."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        source = torch.Generator().manual_seed(3)
        self.seen = torch.randn(ROWS, INPUTS, generator=source, dtype=torch.float64).to(dtype)
        self.unseen = torch.randn(ROWS, INPUTS, generator=source, dtype=torch.float64).to(dtype)
        self.labels = torch.randint(CLASSES, (ROWS,), generator=source)
        self.start = [
            torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)
            for shape in ((HIDDEN, INPUTS), (CLASSES, HIDDEN))
        ]

    def outputs(self, theta: Tensor, rows: Tensor) -> Tensor:
        """The network's outputs with all weights in one vector."""
        first, second = torch.split(theta, [HIDDEN * INPUTS, CLASSES * HIDDEN])
        return torch.tanh(rows @ first.view(HIDDEN, INPUTS).T) @ second.view(CLASSES, HIDDEN).T

    def retain(self, theta: Tensor, part: slice = slice(None)) -> Tensor:
        """Cross-entropy, as the part's share of the mean over all rows."""
        total = cross_entropy(self.outputs(theta, self.seen[part]), self.labels[part], reduction="sum")
        return total / ROWS

    def forget(self, theta: Tensor, part: slice = slice(None)) -> Tensor:
        """0.7 log cosh (output - 1), as the part's share of the mean over all rows."""
        return 0.7 * torch.cosh(self.outputs(theta, self.unseen[part]) - 1).log().sum() / ROWS

    def parameters(self) -> list[nn.Parameter]:
        """Fresh parameters at the start."""
        return [nn.Parameter(tensor.clone()) for tensor in self.start]

    def problem(self, micro_batches: int = 1) -> Problem:
        """Both losses, each cut into equally large micro-batches."""
        parameters = self.parameters()
        size = ROWS // micro_batches
        parts = [slice(begin, begin + size) for begin in range(0, ROWS, size)]
        return Problem(
            parameters,
            summed(parameters, *(lambda theta, part=part: self.retain(theta, part) for part in parts)),
            summed(parameters, *(lambda theta, part=part: self.forget(theta, part) for part in parts)),
        )

    def own_teacher(self) -> Problem:
        """Retain is distillation from the model itself as it was at the start: its gradient there is zero."""
        parameters = self.parameters()
        taught = self.outputs(flat(parameters).detach(), self.seen)
        retain = summed(parameters, lambda theta: mse_loss(self.outputs(theta, self.seen), taught))
        return Problem(parameters, retain, summed(parameters, self.forget))


def break_at(problem: Problem, nth: int) -> None:
    """The nth evaluation, of either objective, raises after its first micro-batch."""
    begun = 0

    def breaking(inner: Objective) -> Objective:
        def objective() -> Iterator[Tensor]:
            nonlocal begun
            begun += 1
            last = begun == nth
            for loss in inner():
                yield loss
                if last:
                    raise BrokenError

        return objective

    problem.retain, problem.forget = breaking(problem.retain), breaking(problem.forget)
