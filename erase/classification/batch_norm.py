"""How batch norm behaves while a network is trained: one way in every look at a loss within a step.

An update rule may look at a loss several times a step, at shifted weights. Were the running statistics moved by each
look, or used in one and not in another, the looks would be at different functions. So there are two ways: `frozen`,
the running statistics are used and never move; and `batch`, each look uses the statistics of the step's own batch,
and the running ones follow the retain batch once a step, at the weights that the step begins with: a rule that looks
at the forget batch first, and shifts the weights, is charged one evaluation more. Under a rule that never looks at the
retain batch (`forget_only`) they stay as they were, so that what is saved is another function than the one whose
gradients were taken. In both ways, dropout and stochastic depth are off: a loss is a function of the parameters alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNormMode = Literal["frozen", "batch"]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises by the statistics of a batch."""
    return any(True for _ in _layers(model))


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that `batch` moves, by name: what a checkpoint must hold besides the parameters."""
    found: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm):
            found |= {f"{name}.{key}".removeprefix("."): value for key, value in layer.named_buffers(recurse=False)}
    return found


def evaluate(model: nn.Module, images: Tensor, *, batch_norm: BatchNormMode = "frozen", track: bool = False) -> Tensor:
    """``[b, k]`` float32 logits of ``[b, c, h, w]`` normalised images; the model is left in evaluation mode.

    ``track``: in mode `batch`, the running statistics follow this batch.
    """
    model.eval()
    if batch_norm == "frozen":
        return model(images).float()
    with _of_the_batch(model, track):
        return model(images).float()


@contextmanager
def _of_the_batch(model: nn.Module, track: bool) -> Iterator[None]:
    layers = [(layer, layer.track_running_stats) for layer in _layers(model)]
    try:
        for layer, tracks in layers:
            layer.train()
            layer.track_running_stats = tracks and track
        yield
    finally:
        for layer, tracks in layers:
            layer.eval()
            layer.track_running_stats = tracks


def _layers(model: nn.Module) -> Iterator[Any]:
    return (layer for layer in model.modules() if isinstance(layer, _BatchNorm))
