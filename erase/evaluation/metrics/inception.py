"""The InceptionV3 that FID was defined with: torchvision's network with the pooling of the TensorFlow graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception_v3

from erase.evaluation.metrics.loading import load_exactly

SIDE = 299
"""Pixels a side that the network sees."""
WIDTH = 2048
"""Features of an image."""
AVERAGED = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")
Pool = Callable[[Tensor], Tensor]


class FIDInception(nn.Module):
    """``[n, 3, 299, 299]`` pixels, 0 to 255, to ``[n, 2048]`` (Heusel et al. 2017).

    The weights are those of TensorFlow's graph of 2015-12-05 in the names that torchvision uses: 1008 classes, no
    auxiliary logits. Where that graph averages it leaves the border out (torchvision counts zeros there), and its last
    block takes a maximum where torchvision takes an average.
    """

    def __init__(self, weights: dict[str, Tensor], source: str) -> None:
        super().__init__()
        self.network: Any = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        load_exactly(self.network, weights, "features.weights", source)
        average = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        for name in AVERAGED:
            getattr(self.network, name).register_forward_hook(_pooled_by(average))
        maximum = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)
        self.network.Mixed_7c.register_forward_hook(_pooled_by(maximum))
        self.network.fc = nn.Identity()
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The features after the last pooling."""
        return self.network((pixels - 128) / 128)


def _pooled_by(pool: Pool) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    """A hook that makes a block's last branch again, from its input pooled in another way."""

    def hook(block: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        branch = block.branch_pool(pool(inputs[0]))
        return torch.cat([output[:, : -branch.shape[1]], branch], dim=1)

    return hook


def resize_clean(images: Sequence[Image.Image]) -> Tensor:
    """``[n, 3, 299, 299]`` by Pillow's bicubic filter on floats, as clean-fid does (Parmar et al. 2022)."""
    return torch.stack([torch.from_numpy(_resize_channels(np.asarray(i.convert("RGB"), np.float32))) for i in images])


def _resize_channels(pixels: np.ndarray) -> np.ndarray:
    channels = [Image.fromarray(np.ascontiguousarray(pixels[:, :, index])) for index in range(3)]
    size = (SIDE, SIDE)
    return np.stack([np.asarray(c.resize(size, Image.Resampling.BICUBIC)).clip(0, 255) for c in channels])


def resize_tensorflow(images: Sequence[Image.Image]) -> Tensor:
    """``[n, 3, 299, 299]`` by TensorFlow 1's bilinear filter, as FID's first code and torch-fidelity do.

    Output pixel i looks at the input's i x (size / 299), not at its center, and nothing is smoothed before.
    """
    resized = []
    for image in images:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1).copy())
        rows = _between(pixels, dim=1)
        resized.append(_between(rows, dim=2))
    return torch.stack(resized)


def _between(pixels: Tensor, dim: int) -> Tensor:
    size = pixels.shape[dim]
    place = torch.arange(SIDE, dtype=torch.float32) * (size / SIDE)
    low = place.floor().long().clamp(max=size - 1)
    share = (place - low).view(-1, 1) if dim == 1 else place - low
    first, second = pixels.index_select(dim, low), pixels.index_select(dim, (low + 1).clamp(max=size - 1))
    return first + (second - first) * share
