"""Selective synaptic dampening: weights that matter more to the forget set than to all data are made smaller."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from erase.classification.material import Material
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class SelectiveDampening:
    """SSD (Foster et al., AAAI 2024, eq. 4-5): where F_f > alpha F_D, theta *= min(1, lam F_D / F_f).

    F is the mean over batches of the squared gradient of the batch's cross-entropy, F_f on the forget set and F_D on
    all training samples.
    """

    name: Literal["selective_dampening"] = "selective_dampening"
    alpha: Annotated[float, Field(gt=0, description="how many times F_D a weight's F_f must be to be dampened")] = 10.0
    lam: Annotated[float, Field(gt=0, description="the factor is this times F_D / F_f, at most 1")] = 1.0
    batch_size: Annotated[
        int, Field(ge=1, description="samples in a batch whose gradient is squared; a smaller set's size limits it")
    ] = 64

    def __call__(self, model: nn.Module, material: Material) -> None:
        """In place."""
        splits, size = material.splits, material.common_size(self.batch_size)
        forget, whole = (material.fisher(model, part, size) for part in (splits.forget, splits.train))
        with torch.no_grad():
            for name, p in material.parameters.items():
                dampened = p * (self.lam * whole[name] / forget[name]).clamp(max=1)
                p.copy_(torch.where(forget[name] > self.alpha * whole[name], dampened, p))
