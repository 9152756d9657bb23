"""Retain losses that learn from labels: plain, and with a pull towards few weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Batch
from erase.classification.losses.base import Loss, label_loss
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class CrossEntropy(Loss):
    """CE(logits, y), what the original was trained with."""

    name: Literal["cross_entropy"] = "cross_entropy"

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return label_loss(logits, batch.labels)


@dataclass(frozen=True, config=STRICT)
class L1Sparse(Loss):
    """CE + gamma (1 - t) ||theta||_1, t the run's progress: l1-sparse (Jia et al., NeurIPS 2023, eq. 4, decaying)."""

    name: Literal["l1_sparse"] = "l1_sparse"
    gamma: Annotated[float, Field(ge=0, description="weight of the sum of |theta| at the start")] = 1e-4

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return label_loss(logits, batch.labels)

    def penalty(self, parameters: Iterable[Tensor], batch: Batch) -> Tensor:
        """gamma (1 - t) times the sum of |theta| over what moves."""
        return self.gamma * (1 - batch.progress) * torch.stack([p.abs().sum() for p in parameters]).sum()
