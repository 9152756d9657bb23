"""Teacher distillation: on prompts to keep, go on predicting what the base predicts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.batch import Batch
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses.regression import squared_error


@dataclass(frozen=True, config=STRICT)
class TeacherDistillation:
    """Target: eps*(x_t, p) with the frozen base. The loss and its gradient are exactly 0 before the first step."""

    name: Literal["teacher_distillation"] = "teacher_distillation"
    needs_reference: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False

    def target(self, reference: Denoiser, batch: Batch) -> Tensor:
        """``[b, 4, h, w]``"""
        noisy = reference.noisy(batch.latents, batch.noise, batch.timesteps)
        return reference(noisy, batch.timesteps, batch.prompt)

    def __call__(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """``[b]`` mean squared error."""
        return squared_error(denoiser, batch)
