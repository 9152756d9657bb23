"""Negative guidance: predict, for prompts with the concept, what the base predicts away from it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.batch import Batch
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses.regression import squared_error


@dataclass(frozen=True, config=STRICT)
class NegativeGuidance:
    """ESD (Gandikota et al., ICCV 2023) in its later form, with the concept apart from the prompt.

    Target: eps*(p) - eta [eps*(c) - eps*(empty)], where c names the concept alone and p is any prompt with
    it; eps* is the frozen base. With p = c, eta = 2 is the paper's eq. 7 with its eta = 1.
    """

    name: Literal["negative_guidance"] = "negative_guidance"
    eta: Annotated[float, Field(gt=0, description="how far to guide away from the concept")] = 2.0
    needs_reference: ClassVar[bool] = True
    needs_anchor: ClassVar[bool] = False

    def target(self, reference: Denoiser, batch: Batch) -> Tensor:
        """``[b, 4, h, w]``"""
        if batch.concept is None:
            raise ValueError("negative_guidance needs the concept's own states")
        noisy = reference.noisy(batch.latents, batch.noise, batch.timesteps)
        states = torch.cat([batch.prompt, batch.concept, batch.empty])
        predicted = reference(noisy.repeat(3, 1, 1, 1), batch.timesteps.repeat(3), states)
        prompt, concept, empty = predicted.chunk(3)
        return prompt - self.eta * (concept - empty)

    def __call__(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """``[b]`` weighted mean squared error."""
        return squared_error(denoiser, batch)
