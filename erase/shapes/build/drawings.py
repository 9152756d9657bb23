"""Drawings in quantity, as tensors, for the models to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from erase.embedded import FULL_TEMPLATE, VOCABULARY
from erase.shapes.drawing import draw
from erase.vocabulary import Caption

COMBINATIONS: list[Caption] = VOCABULARY.captions([FULL_TEMPLATE])
"""The 240 full captions, in a fixed order."""


@dataclass(frozen=True)
class Drawings:
    """Pictures and, for each, which of the 240 combinations it shows."""

    images: Tensor
    """``[n, 3, 32, 32]`` float32 in [-1, 1]."""
    combination: Tensor
    """``[n]`` index into :data:`COMBINATIONS`."""

    def __len__(self) -> int:
        return len(self.images)


def make_drawings(copies: int, seed: int) -> Drawings:
    """Every combination ``copies`` times; each picture has a random stream of its own."""
    images = []
    for index, caption in enumerate(tqdm(COMBINATIONS, desc="drawing", leave=False)):
        for copy in range(copies):
            rng = np.random.default_rng((seed, index, copy))
            c = caption.concepts
            images.append(draw(c["object"], c["color"], c["style"], rng))
    return Drawings(to_tensor(np.stack(images)), torch.arange(len(COMBINATIONS)).repeat_interleave(copies))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """``[n, h, w, 3]`` uint8 to ``[n, 3, h, w]`` float32 in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
