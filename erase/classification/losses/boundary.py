"""Boundary unlearning: move the decision boundary over the forget set, or give it a class of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Batch
from erase.classification.losses.base import Loss, Network, asked_teacher, found_target, label_loss
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class BoundaryShrink(Loss):
    """CE(logits, y'), y' the nearest wrong class (Chen et al., CVPR 2023, boundary shrinking).

    It is the original's most likely class other than y at x + bound sign(grad_x CE(original(x), y)). The papers' code
    takes the most likely class, which a small bound may leave at y itself.
    """

    name: Literal["boundary_shrink"] = "boundary_shrink"
    bound: Annotated[
        float,
        Field(
            ge=0,
            description="how far each pixel moves, in standard deviations of its channel; 0.4 is about 0.1 of the "
            "pixels' range on CIFAR-10",
        ),
    ] = 0.4
    needs_original: ClassVar[bool] = True

    def target(self, teacher: Network | None, model: Network, batch: Batch) -> Tensor:
        """``[b]`` int64"""
        original = asked_teacher(teacher)
        with torch.enable_grad():
            images = batch.images.detach().clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(label_loss(original(images), batch.labels).sum(), images)
        moved = original(images.detach() + self.bound * slope.sign())
        return moved.scatter(1, batch.labels[:, None], -torch.inf).argmax(1)

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return label_loss(logits, found_target(batch))


@dataclass(frozen=True, config=STRICT)
class BoundaryExpand(Loss):
    """CE(logits, K), K a class that the network is given for this and loses at the end (Chen et al., CVPR 2023)."""

    name: Literal["boundary_expand"] = "boundary_expand"
    extra_class: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return label_loss(logits, torch.full_like(batch.labels, logits.shape[1] - 1))
