"""A last layer with one class more, for boundary expanding, and without it again."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from erase.classification.batch_norm import evaluate
from erase.classification.models import head
from erase.classification.splits import Splits
from erase.randomness import generator


@torch.no_grad()
def grow_head(model: nn.Module, seed: int) -> None:
    """Gives the last layer one row more, in place; the old rows stay, the new one is as torch draws a linear layer's.

    Uniform in +- 1 / sqrt(inputs), from the seed.
    """
    name, old = head(model)
    new = _like(old, old.out_features + 1)
    source, bound = generator(seed, "extra class"), old.in_features**-0.5
    row = torch.rand(1, old.in_features + 1, generator=source).to(old.weight) * 2 * bound - bound
    new.weight.copy_(torch.cat([old.weight, row[:, :-1]]))
    if old.bias is not None:
        new.bias.copy_(torch.cat([old.bias, row[0, -1:]]))
    model.set_submodule(name, new)


@torch.no_grad()
def unfit_head(model: nn.Module, splits: Splits) -> Iterator[str]:
    """Why the network cannot have one class more: its logits are not of its last layer alone."""
    grown, sample = copy.deepcopy(model), splits.normalise(splits.forget.pixels[:1])
    grow_head(grown, seed=0)
    try:
        if evaluate(grown, sample).shape[1] == len(splits.classes) + 1:
            return
    except RuntimeError:
        pass  # two heads, whose logits are added
    rule = "the forget loss gives its last layer a class more; choose another network, or another forget_loss.name"
    yield f"model.architecture: the logits are not those of {head(model)[0]} alone; {rule}"


@torch.no_grad()
def with_smaller_head(model: nn.Module) -> nn.Module:
    """A copy of the model whose last layer lacks its last row."""
    model = copy.deepcopy(model)
    name, old = head(model)
    new = _like(old, old.out_features - 1)
    new.weight.copy_(old.weight[:-1])
    if old.bias is not None:
        new.bias.copy_(old.bias[:-1])
    model.set_submodule(name, new)
    return model


def _like(old: nn.Linear, outputs: int) -> nn.Linear:
    weight = old.weight
    made = nn.utils.skip_init(nn.Linear, old.in_features, outputs, bias=old.bias is not None, device=weight.device)
    return made.to(weight.dtype).train(old.training)
