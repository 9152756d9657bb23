"""How far a picture moved: before and after of one prompt and seed, by features and by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from erase.components import STRICT
from erase.errors import UserError
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.loading import library
from erase.evaluation.metrics.protocols import Columns

WINDOW = 11
"""Pixels a side of SSIM's Gaussian window."""


@dataclass(frozen=True, config=STRICT)
class ClipDistance(UsesClip):
    """1 - cosine of the two pictures' CLIP features: 0 for equal pictures, at most 2; what they show, not how."""

    name: Literal["clip_distance"] = "clip_distance"

    def identity(self) -> dict[str, Any]:
        """The model and the scale."""
        return {"metric": self.name, **self.clip.identity(), "scale": "1 - cosine"}

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Columns:
        """``clip_distance``, one a pair."""
        cosines = (self.clip.embed(before) * self.clip.embed(after)).sum(-1)
        return {"clip_distance": (1 - cosines).tolist()}


@dataclass(frozen=True, config=STRICT)
class PixelDistance:
    """The mean absolute difference of the pixels, 0 to 1, and SSIM (Wang et al. 2004), 1 for equal pictures."""

    name: Literal["pixel_distance"] = "pixel_distance"

    def identity(self) -> dict[str, Any]:
        """The library, and SSIM's constants."""
        return {"metric": self.name, **library("torchmetrics"), "ssim": "Gaussian window 11, sigma 1.5, RGB, range 1"}

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Columns:
        """``mean_absolute_difference`` and ``ssim``, one a pair."""
        differences, similarities = [], []
        for then, now in zip(before, after, strict=True):
            one, other = (side.double() for side in pixels_of_pair(then, now, WINDOW, self.name))
            differences.append(float((one - other).abs().mean()))
            ssim = structural_similarity_index_measure(one[None], other[None], data_range=1.0, kernel_size=WINDOW)
            similarities.append(float(torch.as_tensor(ssim)))
        return {"mean_absolute_difference": differences, "ssim": similarities}


def pixels_of_pair(before: Image.Image, after: Image.Image, smallest: int, metric: str) -> tuple[Tensor, Tensor]:
    """``[3, height, width]`` each, 0 to 1; pictures of two sizes, or smaller than ``smallest``, are refused."""
    if before.size != after.size:
        raise UserError(f"{metric}: a picture is {before.size} before and {after.size} after; make both at one size")
    if min(before.size) < smallest:
        raise UserError(f"{metric}: a picture is {before.size}; {smallest} pixels a side are needed")
    one, other = (torch.from_numpy(np.asarray(i.convert("RGB"), np.float32) / 255) for i in (before, after))
    return one.permute(2, 0, 1).contiguous(), other.permute(2, 0, 1).contiguous()
