"""Negative guidance: predict, for prompts with the concept, what the base predicts away from it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.batch import Batch
from erase.diffusion.conditioning import together
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses.regression import squared_error


@dataclass(frozen=True, config=STRICT)
class NegativeGuidance:
    """ESD (Gandikota et al., ICCV 2023) in its later form, with the concept apart from the prompt.

    Target: eps*(p) - eta [eps*(c) - eps*(n)], with the frozen base eps*. Either c is p itself and n is p without
    the concept ("a red circle" for "a red circle in dotted style"), the concept's effect in its context; or c
    names the concept alone and n is the empty prompt. The latter with p = c and eta = 2 is the paper's eq. 7
    with its eta = 1; the former with eta = 1 is a redirection to n.

    Where the picture was made without the concept, a smaller ``eta_absent`` stands for eta. The direction is long
    there, as the base would draw the concept into the picture: guidance of scale w leaves w (1 - eta_absent) of it.
    """

    name: Literal["negative_guidance"] = "negative_guidance"
    eta: Annotated[float, Field(gt=0, description="how far to guide away from the concept")] = 2.0
    eta_absent: Annotated[
        float, Field(gt=0, description="the same on pictures made without the concept (latents.neutral)")
    ] = 1.2
    needs_reference: ClassVar[bool] = True
    needs_anchor: ClassVar[bool] = False
    needs_direction: ClassVar[bool] = True

    def target(self, reference: Denoiser, batch: Batch) -> Tensor:
        """``[b, 4, h, w]``"""
        if batch.concept is None:
            raise ValueError("negative_guidance needs the concept's own prompts")
        noisy = reference.noisy(batch.latents, batch.noise, batch.timesteps)
        in_context = batch.concept.says_the_same(batch.prompt)
        prompts = [batch.prompt, batch.baseline] if in_context else [batch.prompt, batch.baseline, batch.concept]
        times = len(prompts)
        shown = reference(noisy.repeat(times, 1, 1, 1), batch.timesteps.repeat(times), together(prompts)).chunk(times)
        prompt, baseline, concept = shown[0], shown[1], shown[-1] if not in_context else shown[0]
        strength = torch.where(batch.shows, self.eta, self.eta_absent).view(-1, 1, 1, 1)
        return prompt - strength * (concept - baseline)

    def __call__(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """``[b]`` weighted mean squared error."""
        return squared_error(denoiser, batch)
