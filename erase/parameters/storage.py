"""How frozen weights are kept while others train."""

from __future__ import annotations

import torch
from torch import nn

CAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights autocast rounds to its precision at each use."""


def store_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Keeps the frozen weights of linear and convolution layers in autocast's precision, in half the memory.

    Under autocast to ``dtype`` every result is the same, bit for bit: they are rounded once instead of at each use.
    Normalisation keeps float32. Not for a model that is saved with these weights.
    """
    for layer in model.modules():
        frozen = list(layer.parameters(recurse=False))
        if isinstance(layer, CAST) and not any(p.requires_grad for p in frozen):
            for p in frozen:
                p.data = p.data.to(dtype)
