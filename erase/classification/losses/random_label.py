"""Random labels: learn the forget set anew, with labels that mean nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Batch
from erase.classification.losses.base import Loss, Network, found_target, label_loss
from erase.components import STRICT
from erase.randomness import generator


@dataclass(frozen=True, config=STRICT)
class RandomLabel(Loss):
    """CE(logits, y'), y' uniform and drawn anew each step: RL (Golatkar et al. 2020); SalUn and MUNBa forget by it."""

    name: Literal["random_label"] = "random_label"
    excluding: Annotated[
        bool, Field(description="never draw the true label (SFRon); false: draw from all (SalUn on CIFAR-10)")
    ] = True
    whole_batch: ClassVar[bool] = True

    def target(self, teacher: Network | None, model: Network, batch: Batch) -> Tensor:
        """``[b]`` in [0, 1): where among the labels the drawn one stands."""
        source = generator(batch.seed, "random label")
        return torch.rand(len(batch), generator=source).to(batch.labels.device)

    def labels(self, batch: Batch, classes: int) -> Tensor:
        """``[b]`` the labels that the target stands for, among so many classes."""
        places = found_target(batch)
        if not self.excluding:
            return (places * classes).long()
        drawn = (places * (classes - 1)).long()
        return drawn + (drawn >= batch.labels).long()

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return label_loss(logits, self.labels(batch, logits.shape[1]))
