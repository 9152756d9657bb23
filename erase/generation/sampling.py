"""Images of prompts, each from a seed of its own: the same picture in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Shot:
    """One image to make."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class SamplingSettings:
    """How every image is made."""

    steps: int = 15
    """Denoising steps of the pipeline's own scheduler."""
    guidance_scale: float = 4.0
    batch_size: int = 40


def generate(
    pipeline: Any, shots: Sequence[Shot], settings: SamplingSettings, description: str = "images"
) -> list[Image.Image]:
    """The shots' images, in order."""
    images: list[Image.Image] = []
    with tqdm(total=len(shots), desc=description) as bar:
        for start in range(0, len(shots), settings.batch_size):
            chunk = shots[start : start + settings.batch_size]
            images += pipeline(
                [shot.prompt for shot in chunk],
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                generator=[torch.Generator().manual_seed(shot.seed) for shot in chunk],
            ).images
            bar.update(len(chunk))
    return images
