"""Drawings of Shapes World, labelled by one of its domains."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.classification.data.source import Source
from erase.classification.images import Images
from erase.components import STRICT
from erase.embedded import FULL_TEMPLATE, IMAGE_SIZE, VOCABULARY
from erase.shapes.drawing import draw


@dataclass(frozen=True, config=STRICT)
class Shapes:
    """Every one of the 240 combinations of object, color and style in turn, drawn at a place and size of its own."""

    name: Literal["shapes"] = "shapes"
    images: Annotated[int, Field(ge=240)] = 16_000
    """how many drawings; 240 show each combination once"""
    label: Literal["object", "color", "style"] = "object"
    """what the classifier is to tell: 8 objects, 6 colors or 5 styles"""
    size: Annotated[int, Field(ge=8, le=512)] = IMAGE_SIZE
    """pixels a side"""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """standard deviation of what is added to every value of a pixel, where white is 1: drawings that leave doubt"""
    seed: Annotated[int, Field(ge=0)] = 0
    """of the drawings; how they are split is the run's own seed"""

    def load(self, seed: int) -> Source:
        """``[images, 3, size, size]``; drawing i depends on ``self.seed`` and i alone."""
        return _drawn(self)


@lru_cache(maxsize=1)
def _drawn(settings: Shapes) -> Source:
    """The last set stays in memory: a study asks for it once for every method and seed."""
    combinations = [caption.concepts for caption in VOCABULARY.captions([FULL_TEMPLATE])]
    classes = VOCABULARY.domains[settings.label]
    drawings, labels, ids = [], [], []
    for place in range(settings.images):
        words = combinations[place % len(combinations)]
        rng = np.random.default_rng((settings.seed, place))
        drawing = draw(words["object"], words["color"], words["style"], rng, settings.size)
        drawings.append(with_noise(drawing, settings.noise, rng) if settings.noise else drawing)
        labels.append(classes.index(words[settings.label]))
        ids.append(f"shapes-{settings.seed}-{place:06d}")
    pixels = torch.from_numpy(np.stack(drawings)).permute(0, 3, 1, 2).contiguous()
    return Source(Images(pixels, torch.tensor(labels), tuple(ids)), None, classes)


def with_noise(drawing: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """``[size, size, 3]`` uint8; each value with a normal one of its own added, in units of 255, and cut to 0..255."""
    noisy = drawing + 255 * deviation * rng.standard_normal(drawing.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
