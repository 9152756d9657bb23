"""What a denoiser is trained on, apart from any sampler: how its input is noised, and what it predicts of it.

Noise, velocity, flow and latents are affine in one another at a given x_t: eps = sqrt(a) v + sqrt(1 - a) x_t. So a sum
of predictions whose weights add up to 1, such as p - eta (c - n), means the same whichever of them the model predicts,
and no loss needs to know. Squared errors differ by a factor of the timestep alone: |d eps|^2 = a_t |d v|^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from erase.errors import UserError

NOISE, VELOCITY, LATENTS, FLOW = "epsilon", "v_prediction", "sample", "flow_prediction"
"""diffusers' names of what may be predicted."""


class Schedule(Protocol):
    """Mixes latents with noise at ``[b]`` timesteps, 0 to ``steps`` - 1."""

    @property
    def steps(self) -> int:
        """How many timesteps the model was trained with."""
        ...

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t."""
        ...

    def truth(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect denoiser would predict for this x_t."""
        ...


@dataclass(frozen=True, eq=False)
class Diffusion:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise (Ho et al. 2020, eq. 4)."""

    alphas: Tensor
    """``[steps]`` float32: a_t, the products of 1 - beta."""
    prediction: str = NOISE
    """``NOISE``, ``VELOCITY`` or ``LATENTS``."""

    @property
    def steps(self) -> int:
        """How many timesteps the model was trained with."""
        return len(self.alphas)

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t."""
        signal, noisiness = self._mixture(latents, timesteps)
        return signal * latents + noisiness * noise

    def truth(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, the latents, or the velocity sqrt(a_t) noise - sqrt(1 - a_t) x_0 (Salimans & Ho 2022, app. D)."""
        if self.prediction != VELOCITY:
            return noise if self.prediction == NOISE else latents
        signal, noisiness = self._mixture(latents, timesteps)
        return signal * noise - noisiness * latents

    def _mixture(self, latents: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t), ``[b, 1, 1, 1]``."""
        alphas = over_latents(self.alphas.to(latents.device, latents.dtype)[timesteps], latents)
        return alphas**0.5, (1 - alphas) ** 0.5


@dataclass(frozen=True)
class Flow:
    """x_t = (1 - s) x_0 + s noise, s = t / steps; the truth is noise - x_0 (Lipman et al. 2023; Esser et al. 2024)."""

    steps: int

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t."""
        share = over_latents(timesteps.to(latents.dtype) / self.steps, latents)
        return (1 - share) * latents + share * noise

    def truth(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The same at every timestep."""
        return noise - latents


def over_latents(values: Tensor, latents: Tensor) -> Tensor:
    """``[b]`` values as ``[b, 1, 1, 1]``, one for each of the latents."""
    return values.view(-1, *[1] * (latents.ndim - 1))


def make_schedule(scheduler: Any, device: torch.device | None = None) -> Schedule:
    """The schedule that a pipeline's scheduler samples along, whichever sampler it is.

    A sampler's own ``add_noise`` is not used: Euler's, which SDXL ships with, mixes in other units.
    """
    config = scheduler.config
    prediction = config.get("prediction_type", NOISE)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or prediction == FLOW:
        return Flow(int(config.num_train_timesteps))
    alphas = getattr(scheduler, "alphas_cumprod", None)
    continuous = config.get("timestep_type") == "continuous"
    if not isinstance(alphas, Tensor) or prediction not in (NOISE, VELOCITY, LATENTS) or continuous:
        kind = f"{'continuous ' if continuous else ''}{type(scheduler).__name__}"
        raise UserError(
            f"model: its scheduler is a {kind} that predicts {prediction!r}, which cannot be trained along; "
            f"supported: schedules of betas that predict {NOISE}, {VELOCITY} or {LATENTS}, and {FLOW}"
        )
    return Diffusion(alphas.to(device=device, dtype=torch.float32), prediction)
