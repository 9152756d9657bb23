"""Any aggregator of TorchJD, by its name there, on the Jacobian of the two objectives."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import cached_property
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.protocols import UpdateState
from erase.randomness import derive
from erase.updates.gram import GramRule, gram_of


def aggregators() -> dict[str, Any]:
    """TorchJD's aggregators, by name; without TorchJD, an error with the remedy."""
    try:
        library: ModuleType = importlib.import_module("torchjd.aggregation")
    except ImportError:
        raise ValueError("TorchJD is not installed; pip install 'erase[torchjd]'") from None
    kinds = {name: getattr(library, name) for name in library.__all__}
    abstract = {"Aggregator", "GramianWeightedAggregator", "WeightedAggregator"}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, library.Aggregator) and name not in abstract}


def fit(aggregator: Any, gradients: Tensor) -> None:
    """Puts the aggregator's tensors where the gradients are, in their type.

    TorchJD keeps options as plain attributes, which ``Module.to`` does not see.
    """
    for part in aggregator.modules():
        held = vars(part)
        held.update({name: value.to(gradients) for name, value in held.items() if isinstance(value, Tensor)})


@dataclass(frozen=True, config=STRICT)
class TorchJD(GramRule):
    """TorchJD (Quinton & Rey 2024, https://torchjd.org): its aggregator of the Jacobian with the rows g_r and g_f.

    One that needs the Gram matrix alone gets it, in float64; another gets the whole Jacobian. Memory: two gradients, as
    a :class:`GramRule`; with the whole Jacobian, 5 (Mean) to 11 (ConFIG) more. What is drawn at random follows
    from the run's seed and the step. An aggregator that remembers past steps begins afresh at step 0, and a run with it
    cannot be resumed: no checkpoint holds its memory. Beware that TorchJD adds a small number to norms:
    its UPGrad is the mean where squared norms are below 1e-4, and its CAGrad, MGDA and PCD stand still where one
    gradient vanishes. The rules of the same names here do neither, but MGDA, which must.
    """

    name: Literal["torchjd"] = "torchjd"
    aggregator: Annotated[str, Field(description="the class's name, such as UPGrad or ConFIG")] = "UPGrad"
    options: Annotated[dict[str, Any], Field(description="arguments of its constructor; a list becomes a tensor")] = (
        Field(default_factory=dict)
    )

    @model_validator(mode="after")
    def _exists(self) -> TorchJD:
        _ = self.module
        return self

    @cached_property
    def module(self) -> Any:
        """The aggregator itself."""
        known = aggregators()
        if self.aggregator not in known:
            raise ValueError(f"TorchJD has no aggregator {self.aggregator!r}; known: {', '.join(sorted(known))}")
        kind = known[self.aggregator]
        gramian = importlib.import_module("torchjd.aggregation").GramianWeightedAggregator
        dtype = torch.float64 if issubclass(kind, gramian) else torch.float32
        try:
            given = {k: torch.tensor(v, dtype=dtype) if isinstance(v, list) else v for k, v in self.options.items()}
            made = kind(**given)
            with torch.random.fork_rng(devices=[]):
                made(torch.eye(2, dtype=dtype))  # two objectives: some need more, or options for two
            if hasattr(made, "reset"):
                made.reset()
            return made
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"TorchJD's {self.aggregator} cannot be made with options {self.options}: {error}"
            ) from None

    @property
    def buffers(self) -> int:
        """The other gradient; where the Gram matrix is not enough, at most what ConFIG takes."""
        return 1 if hasattr(self.module, "gramian_weighting") else 11

    @torch.no_grad()
    def combine(self, retain: Sequence[Tensor], forget: Sequence[Tensor], state: UpdateState) -> None:
        """Puts the aggregation in place of ``forget``."""
        if state.step == 0 and hasattr(self.module, "reset"):
            self.module.reset()
        gram = gram_of(retain, forget)
        size = gram.retain + gram.forget
        if size == 0 or not math.isfinite(size):  # solvers raise; the loop says what is not finite
            for r, f in zip(retain, forget, strict=True):
                f.add_(r)
            return
        with torch.random.fork_rng(devices=sorted({f.device.index for f in forget if f.is_cuda})):
            torch.manual_seed(derive(state.seed, "aggregator", state.step))
            if hasattr(self.module, "gramian_weighting"):
                matrix = torch.tensor([[gram.retain, gram.inner], [gram.inner, gram.forget]], dtype=torch.float64)
                w_retain, w_forget = self.module.gramian_weighting(matrix).tolist()
                for r, f in zip(retain, forget, strict=True):
                    f.mul_(w_forget).add_(r, alpha=w_retain)
                return
            jacobian = torch.stack([torch.cat([g.reshape(-1) for g in side]) for side in (retain, forget)])
            fit(self.module, jacobian)
            whole = self.module(jacobian)
        for f, part in zip(forget, whole.split([f.numel() for f in forget]), strict=True):
            f.copy_(part.view_as(f))
