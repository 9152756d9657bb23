"""Anchor redirection: show the concept, and predict what the base predicts for the anchor instead."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.batch import Batch
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses.regression import squared_error


@dataclass(frozen=True, config=STRICT)
class AnchorRedirection:
    """Concept Ablation (Kumari et al., ICCV 2023, eq. 4, model-based) and SalUn's forget loss.

    Target: eps*(x_t, anchor prompt), with the frozen base; the student is shown the target's prompt. Both papers' code
    asks the network in training, its gradient stopped, and so follows its drift; and Concept Ablation draws x_t from
    pictures of the anchor, where ours show the target, and with `latents.neutral` other wordings too.
    """

    name: Literal["anchor_redirection"] = "anchor_redirection"
    needs_reference: ClassVar[bool] = True
    needs_anchor: ClassVar[bool] = True
    needs_direction: ClassVar[bool] = False

    def target(self, reference: Denoiser, batch: Batch) -> Tensor:
        """``[b, 4, h, w]``"""
        if batch.anchor is None:
            raise ValueError("anchor_redirection needs each target's anchor")
        noisy = reference.noisy(batch.latents, batch.noise, batch.timesteps)
        return reference(noisy, batch.timesteps, batch.anchor)

    def __call__(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """``[b]`` weighted mean squared error."""
        return squared_error(denoiser, batch)
