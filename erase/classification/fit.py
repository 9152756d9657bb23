"""Whether a network goes with the pictures, the classes, the losses and the batches that it is given."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from erase.classification.batch_norm import BatchNormMode, evaluate, has_batch_norm
from erase.classification.losses import ForgetLoss, RetainLoss
from erase.classification.masks import Mask, NoMask
from erase.classification.splits import Splits


def unfit(model: nn.Module, splits: Splits, device: torch.device | str = "cpu") -> Iterator[str]:
    """What of the data the network cannot take: the size of the pictures, or the number of classes."""
    sample = splits.normalise(splits.forget.pixels[:1].to(device))
    try:
        with torch.no_grad():
            found, wanted = evaluate(model, sample).shape[1], len(splits.classes)
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = sample.shape[-2:]
        yield (
            f"model.architecture: the network takes no pictures of {width} x {height} pixels ({error}); give `data` "
            "another size, where it has one, or choose another network"
        )
        return
    if found != wanted:
        yield f"model: the network tells {found} classes apart, the data has {wanted}; give one that fits"


def unfit_losses(forget: ForgetLoss, retain: RetainLoss, mask: Mask) -> Iterator[str]:
    """What a forget loss that gives the network one class more does not go with."""
    if not forget.extra_class:
        return
    if retain.needs_original:
        yield f"retain_loss.name: {retain.name} needs the original's answers, which lack {forget.name}'s class"
    if not isinstance(mask, NoMask):
        yield f"mask.name: {mask.name} is of the original's parameters, to which {forget.name} adds; choose none"


def batch_norm_problems(
    model: nn.Module, mode: BatchNormMode, batch: int, at_random: bool, retains: bool = True
) -> Iterator[str]:
    """What running statistics, or those of a batch, do not go with.

    ``at_random``: the first weights are. ``retains``: the update rule looks at the retain batch, which they follow.
    """
    if not has_batch_norm(model):
        return
    if at_random and mode == "frozen":
        yield (
            "batch_norm: found frozen with weights drawn at random: the running statistics would stay those of a "
            "network that has seen nothing; use batch"
        )
    if at_random and mode == "batch" and not retains:
        yield (
            "batch_norm: found batch with weights drawn at random and update.name forget_only: the running statistics "
            "follow the retain batch, which it never looks at; choose another update, or begin with learned weights"
        )
    if mode == "batch" and batch == 1:
        yield (
            "train_batch_size: found 1; batch_norm batch takes the statistics of a batch, of 2 examples or more; give "
            "more (of an original or a reference: original.train_batch_size), or use batch_norm frozen"
        )
