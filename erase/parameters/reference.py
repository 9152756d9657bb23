"""The frozen model that a loss compares with: the same weights with the adapter off, or a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
from torch import nn

from erase.sharded import shard_like

Model = TypeVar("Model", bound=nn.Module)


def frozen_reference(model: Model, has_adapter: bool) -> Callable[[], AbstractContextManager[Model]]:
    """A way to enter the model as it was before training, without gradients.

    With an adapter no memory is spent; otherwise the model is copied, now. The copy is cut up as the model is, once
    that is.
    """
    if has_adapter:
        return lambda: _adapter_off(model)
    duplicate = copy.deepcopy(model).requires_grad_(False).eval()
    return lambda: _without_gradients(model, duplicate)


@contextmanager
def _without_gradients(model: Model, duplicate: Model) -> Iterator[Model]:
    shard_like(model, duplicate)
    with torch.no_grad():
        yield duplicate


@contextmanager
def _adapter_off(model: Model) -> Iterator[Model]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        with torch.no_grad():
            yield model
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for p in trainable:
            p.requires_grad_(True)
