"""Uniform: know nothing of the forget set."""

from __future__ import annotations

import math
from typing import Literal

from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import log_softmax

from erase.classification.images import Batch
from erase.classification.losses.base import Loss
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class Uniform(Loss):
    """KL(uniform || softmax(logits)) = -mean_j log p_j - log k, in nats; 0 where all logits are equal."""

    name: Literal["uniform"] = "uniform"

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return -log_softmax(logits, 1).mean(1) - math.log(logits.shape[1])
