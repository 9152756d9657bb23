"""The seams of the toolkit: what an update rule, a loss and a model must offer to work together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn


class Objective(Protocol):
    """A loss at the parameters' present values.

    Each call yields the micro-batches' scalar losses, already divided so that they sum to this process's
    share; the objective is the mean over processes. It is a pure function of the parameters: calling it
    twice gives the same numbers.
    """

    def __call__(self) -> Iterator[Tensor]: ...


@dataclass
class UpdateState:
    """What a rule carries from one step to the next; plain numbers by name, so that a checkpoint can hold it."""

    seed: int = 0
    step: int = 0
    alpha: float | None = None
    """The look-ahead step that a controller has arrived at; ``None`` before it has."""
    retain_norm: float = 0.0
    """||g_r|| of the step before."""
    forget_norm: float = 0.0
    """||g_f|| of the step before."""
    conflicts: int = 0
    """Steps so far at which the cosine was below zero."""
    cosines: int = 0
    """Steps so far that had a cosine: both gradients were looked at, and nothing overflowed."""
    block_conflicts: dict[str, int] = field(default_factory=dict)
    """As ``conflicts``, of each block's own cosine; the training loop counts them."""

    def __post_init__(self) -> None:
        """A checkpoint older than ``cosines`` has conflicts alone: then all are counted from there on."""
        if self.conflicts > self.cosines:
            self.conflicts = 0

    @property
    def conflict_share(self) -> float | None:
        """``conflicts / cosines``; ``None`` before there is a cosine."""
        return self.conflicts / self.cosines if self.cosines else None


@dataclass(frozen=True)
class Diagnostics:
    """What one update saw; ``None``: not looked at. All are of averaged gradients, the same on every process.

    Norms, cosine and correction are estimates from sketches, exact for tensors of up to 4,096 entries. A rule that sums
    has the second gradient's sketch as a difference: of one 1e-7 as long as the first, float32 leaves little.

    Each loss and gradient is where the rule took it: at theta, but for LUR's second one, which is at the look-ahead.
    That is the forget one; where `alternating` forgets first, it is the retain one.
    """

    retain_loss: float | None
    forget_loss: float | None
    retain_norm: float | None
    """||g_r||"""
    forget_norm: float | None
    """||g_f||"""
    cosine: float | None
    """<g_f, g_r> / (||g_f|| ||g_r||); 0 if either is zero. LUR's is of gradients at two points, so it does not compare
    with another rule's: a probe's ``cosine_before`` does, both gradients being at theta."""
    evaluations: int
    """Gradient evaluations: forward and backward passes over one objective's batch."""
    alpha: float | None = None
    """LUR's inner step, in parameter units per unit gradient."""
    correction: float | None = None
    """||alpha H_r u|| / ||g_r + u||, u = g_f at the look-ahead: the half of LUR's change against the plain sum that
    is known without a further evaluation; the other half, alpha H_f g_r, is inside u. `first_order` has that half
    alone: ||u - g_f|| / ||g_r + g_f||."""
    sketches: tuple[Tensor | None, Tensor | None] = field(default=(None, None), compare=False, repr=False)
    """Sketches of g_r and g_f, see :func:`erase.gradients.sketch`."""
    correction_sketches: tuple[Tensor, Tensor] | None = field(default=None, compare=False, repr=False)
    """Sketches of the two whose norms ``correction`` is the ratio of."""

    def without_sketches(self) -> Diagnostics:
        """The numbers alone, which hold no memory while the next gradients are made."""
        return replace(self, sketches=(None, None), correction_sketches=None)

    def numbers(self) -> dict[str, float | None]:
        """Everything but the sketches, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.endswith("sketches")}


@dataclass(frozen=True)
class Shard:
    """This process's part of every step's batch of ``total`` examples."""

    process: int = 0
    processes: int = 1
    micro_batches: int = 1
    batch_size: int = 1
    """Examples in one micro-batch of one process."""

    @property
    def total(self) -> int:
        """Examples of one objective in one step, over all processes and micro-batches."""
        return self.processes * self.micro_batches * self.batch_size

    def spans(self) -> list[tuple[int, int]]:
        """Where this process's micro-batches start and stop in the step's batch."""
        first = self.process * self.micro_batches
        return [(m * self.batch_size, (m + 1) * self.batch_size) for m in range(first, first + self.micro_batches)]


class Task(Protocol):
    """A domain's side of a run: what is trained, on what, and how the result is saved."""

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        ...

    @property
    def buffers(self) -> dict[str, Tensor]:
        """What else a step changes, such as running statistics; a checkpoint holds it too."""
        ...

    @property
    def blocks(self) -> list[str]:
        """The part of the model that each of ``trainable`` belongs to, in its order; for telemetry."""
        ...

    @property
    def evaluations(self) -> int:
        """Examples that the model was evaluated on so far, in this process."""
        ...

    def objectives(self, step: int, shard: Shard) -> tuple[Objective, Objective]:
        """The step's retain and forget objectives; the same step always gives the same."""
        ...

    def after_step(self) -> None:
        """Called once the optimizer has moved the parameters: puts back what must not move."""
        ...

    def describe_batch(self, step: int, shard: Shard) -> list[str]:
        """The step's examples in words, for messages."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the finished model into a folder."""
        ...


class UpdateRule(Protocol):
    """Combines two objectives into one gradient, left in each parameter's ``.grad``."""

    @property
    def buffers(self) -> int:
        """Tensors as large as all trainable parameters that a step holds beside the one gradient.

        Not counted: up to four :func:`erase.gradients.sketch`, each 1/17 of a large gradient and as long as one of
        small tensors, such as LoRA's; the Gram matrix's few tensors in float64; on several processes, one bucket of
        an all-reduce.
        """
        ...

    def __call__(
        self, retain: Objective, forget: Objective, parameters: Sequence[nn.Parameter], state: UpdateState
    ) -> Diagnostics: ...
