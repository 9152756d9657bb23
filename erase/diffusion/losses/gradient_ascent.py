"""Gradient ascent: make the ordinary training loss on the concept's pictures worse."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.batch import Batch
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses.regression import squared_error


@dataclass(frozen=True, config=STRICT)
class GradientAscent:
    """- |eps - eps_theta(x_t, p)|^2: the denoising loss (Ho et al. 2020, eq. 14), negated (GA, Thudi et al. 2022).

    It has no lower bound: what keeps it in check is the retain loss alone, so that the forget weight decides whether
    the model stands. It is here because the two gradients conflict most under it; to erase, prefer the others.
    """

    name: Literal["gradient_ascent"] = "gradient_ascent"
    needs_reference: ClassVar[bool] = False
    needs_anchor: ClassVar[bool] = False
    needs_direction: ClassVar[bool] = False

    def target(self, reference: Denoiser, batch: Batch) -> Tensor:
        """``[b, 4, h, w]``; ``reference`` gives its schedule only."""
        return reference.truth(batch.latents, batch.noise, batch.timesteps)

    def __call__(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """``[b]`` weighted mean squared error, negated: at most 0."""
        return -squared_error(denoiser, batch)
