"""How far a picture moved: before and after of one prompt and seed, by features and by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.errors import UserError
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.loading import device, library
from erase.evaluation.metrics.protocols import Asked, Columns

WINDOW = 11
"""Pixels a side of SSIM's Gaussian window."""
SIGMA = 1.5
"""Of that window, in pixels."""
PIXELS = 2**20
"""Pixels of each side that are compared at a time: pairs of one size go together."""


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
    """The mean absolute difference of the pixels, 0 to 1, and SSIM (Wang et al. 2004), 1 for equal pictures.

    Pairs of one size go through together, where judges run. Both are taken in float64: SSIM divides differences of
    nearly equal sums, and float32 would leave the third decimal of a picture with a white ground in doubt.
    """

    name: Literal["pixel_distance"] = "pixel_distance"

    def identity(self) -> dict[str, Any]:
        """The library, and SSIM's constants."""
        ssim = "Gaussian window 11, sigma 1.5, RGB, range 1, float64"
        return {"metric": self.name, **library("torch"), "ssim": ssim}

    def check(self, pictures: Sequence[Asked]) -> None:
        """Any prompts will do."""

    @torch.no_grad()
    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Columns:
        """``mean_absolute_difference`` and ``ssim``, one a pair."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, (then, now) in enumerate(zip(before, after, strict=True)):
            check_pair(then, now, WINDOW, self.name)
            by_size.setdefault(then.size, []).append(place)
        found = torch.empty(2, len(before), dtype=torch.float64)
        for (width, height), places in by_size.items():
            for part in torch.tensor(places).split(max(1, PIXELS // (width * height))):
                one, other = (torch.stack([pixels_of(side[place]) for place in part]) for side in (before, after))
                one, other = (side.to(device(), torch.float64) for side in (one, other))
                found[0, part] = (one - other).abs().mean((1, 2, 3)).cpu()
                found[1, part] = structural_similarity(one, other).cpu()
        differences, similarities = found.tolist()
        return {"mean_absolute_difference": differences, "ssim": similarities}


def structural_similarity(one: Tensor, other: Tensor) -> Tensor:
    """``[n]``, SSIM of ``[n, 3, height, width]`` pixels, 0 to 1, in their dtype.

    The mean over channels and windows of (2 mu nu + c) (2 cov + d) / ((mu^2 + nu^2 + c) (s^2 + t^2 + d)), with
    c = 0.01^2 and d = 0.03^2; the border is mirrored.
    """
    c, d = 0.01**2, 0.03**2
    mu, nu = _blur(one), _blur(other)
    variances = (_blur(one * one) - mu * mu).clamp(min=0) + (_blur(other * other) - nu * nu).clamp(min=0)
    covariance = _blur(one * other) - mu * nu
    similar = (2 * mu * nu + c) * (2 * covariance + d) / ((mu * mu + nu * nu + c) * (variances + d))
    return similar.mean((1, 2, 3))


def _blur(pixels: Tensor) -> Tensor:
    """The Gaussian mean around each pixel: along rows, then along columns."""
    reach = WINDOW // 2
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = (-place.square() / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    for dim, border in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        size, padded = pixels.shape[dim], torch.nn.functional.pad(pixels, border, mode="reflect")
        pixels = torch.zeros_like(pixels)
        for shift, weight in enumerate(weights.tolist()):
            pixels.add_(padded.narrow(dim, shift, size), alpha=weight)
    return pixels


def check_pair(before: Image.Image, after: Image.Image, smallest: int, metric: str) -> None:
    """Refuses pictures of two sizes, or smaller than ``smallest`` pixels a side."""
    if before.size != after.size:
        raise UserError(f"{metric}: a picture is {before.size} before and {after.size} after; make both at one size")
    if min(before.size) < smallest:
        raise UserError(f"{metric}: a picture is {before.size}; {smallest} pixels a side are needed")


def pixels_of(image: Image.Image) -> Tensor:
    """``[3, height, width]``, 0 to 1."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
    return pixels.permute(2, 0, 1).contiguous()


def pixels_of_pair(before: Image.Image, after: Image.Image, smallest: int, metric: str) -> tuple[Tensor, Tensor]:
    """``[3, height, width]`` each, 0 to 1, of pictures that :func:`check_pair` passes."""
    check_pair(before, after, smallest, metric)
    return pixels_of(before), pixels_of(after)
