"""What every denoising loss ends in: the distance to a fixed target."""

from __future__ import annotations

from torch import Tensor

from erase.diffusion.batch import Batch
from erase.diffusion.denoiser import Denoiser


def squared_error(denoiser: Denoiser, batch: Batch) -> Tensor:
    """``[b]`` weight * mean over latents of (prediction - target)^2, for the prompt at x_t."""
    if batch.target is None:
        raise ValueError("the batch has no target; call the loss's `target` first")
    noisy = denoiser.noisy(batch.latents, batch.noise, batch.timesteps)
    error = denoiser(noisy, batch.timesteps, batch.prompt) - batch.target
    return batch.weight * error.pow(2).flatten(1).mean(1)
