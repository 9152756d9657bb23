"""Gradient ascent: unlearn by climbing the loss that was descended to learn."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Batch
from erase.classification.losses.base import Loss, label_loss
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class GradientAscent(Loss):
    """-CE(logits, y): GA (Thudi et al. 2022); with a retain loss, NegGrad+ (Kurmanji et al. 2023). It has no least."""

    name: Literal["gradient_ascent"] = "gradient_ascent"

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at most 0."""
        return -label_loss(logits, batch.labels)
