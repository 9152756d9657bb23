"""Denoising: the loss that the base was trained with, on captioned images to keep."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.batch import Batch
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses.regression import squared_error


@dataclass(frozen=True, config=STRICT)
class Denoising:
    """Target: the noise (or velocity) in x_t itself (Ho et al. 2020, eq. 14); no reference model."""

    name: Literal["denoising"] = "denoising"
    needs_reference: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True

    def target(self, reference: Denoiser, batch: Batch) -> Tensor:
        """``[b, 4, h, w]``; ``reference`` gives its schedule only."""
        return reference.truth(batch.latents, batch.noise, batch.timesteps)

    def __call__(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """``[b]`` mean squared error."""
        return squared_error(denoiser, batch)
