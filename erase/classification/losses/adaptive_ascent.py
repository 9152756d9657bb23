"""Adaptive ascent: climb most where the network still knows the sample."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Batch
from erase.classification.losses.base import Loss, Network, found_target, label_loss
from erase.components import STRICT

FLOOR = torch.finfo(torch.float32).eps
"""Least cross-entropy that a weight is taken from: a sample known by heart has 0."""


@dataclass(frozen=True, config=STRICT)
class AdaptiveAscent(Loss):
    """SFRon's forget loss (Huang et al., NeurIPS 2024): -s_t w_i CE_i, with w_i = CE_i^-power over their mean.

    The weights are taken from the step's whole batch before it, and carry no gradient. s_t follows the run's progress
    t: 1, or (1 + cos(pi t)) / 2 as SFRon's.
    """

    name: Literal["adaptive_ascent"] = "adaptive_ascent"
    power: Annotated[float, Field(ge=0, le=2, description="of 1 / CE in a sample's weight; 0: plain ascent")] = 0.5
    decay: Annotated[
        Literal["none", "cosine"], Field(description="course of the loss's weight over the run, from 1 to 0")
    ] = "cosine"
    whole_batch: ClassVar[bool] = True
    needs_student: ClassVar[bool] = True

    def target(self, teacher: Network | None, model: Network, batch: Batch) -> Tensor:
        """``[b]`` weights, of the mean 1 over the step's batch."""
        weights = label_loss(model(batch.images), batch.labels).clamp(min=FLOOR).pow(-self.power)
        return weights / weights.mean()

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at most 0."""
        strength = (1 + math.cos(math.pi * batch.progress)) / 2 if self.decay == "cosine" else 1.0
        return -strength * found_target(batch) * label_loss(logits, batch.labels)
