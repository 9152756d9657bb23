"""What the diffusion tests share: examples of random latents, and denoisers whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from erase.diffusion.batch import Batch, Examples
from erase.diffusion.conditioning import Conditioning, encode_prompts
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.prediction import Schedule, make_schedule
from erase.shapes.build.denoiser import make_scheduler

PROMPTS = ("a red star", "a star in dotted style", "a blue star in flat style")
ANCHORS = ("a red circle", "a circle in dotted style", "a blue circle in flat style")


class LinearUNet(nn.Module):
    """Predicts ``gain`` times the mean of the prompt's state, everywhere; looks at nothing else."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> SimpleNamespace:
        said = self.gain * states.mean((1, 2))
        return SimpleNamespace(sample=said[:, None, None, None].expand_as(noisy))


def linear_denoiser(gain: float) -> Denoiser:
    return Denoiser(LinearUNet(gain), make_schedule(make_scheduler()))


def velocity_schedule() -> Schedule:
    return make_schedule(DDIMScheduler.from_config(make_scheduler().config, prediction_type="v_prediction"))


def constant_prompts(values: Sequence[float]) -> Conditioning:
    """One state of 2 tokens and width 3 for each value, filled with it."""
    return Conditioning(torch.tensor(values).view(-1, 1, 1).expand(-1, 2, 3))


def constant_batch(
    prompt: Sequence[float],
    concept: Sequence[float] | None = None,
    anchor: Sequence[float] | None = None,
    empty: float = 0.0,
    weight: Sequence[float] | None = None,
    shows: Sequence[bool] | None = None,
) -> Batch:
    """A batch whose states are constants, for denoisers that read nothing but the state."""
    count = len(prompt)
    return Batch(
        latents=torch.randn(count, 4, 2, 2),
        noise=torch.randn(count, 4, 2, 2),
        timesteps=torch.arange(count) * 100,
        prompt=constant_prompts(prompt),
        concept=None if concept is None else constant_prompts(concept),
        anchor=None if anchor is None else constant_prompts(anchor),
        baseline=constant_prompts([empty] * count),
        shows=torch.tensor(shows or [True] * count),
        weight=torch.tensor(weight or [1.0] * count),
        texts=("",) * count,
    )


def star_examples() -> Examples:
    """Three pictures' worth of noise, said to show stars; each has an anchor and a weight of its own."""
    rng = torch.Generator().manual_seed(1)
    return Examples(torch.randn(3, 4, 8, 8, generator=rng), PROMPTS, ("a star",) * 3, ANCHORS, weights=(1.0, 2.0, 0.5))


def circle_examples() -> Examples:
    """Examples to keep: prompts alone."""
    return Examples(torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2)), ANCHORS)


def told_of(pipeline: Any) -> dict[str, Conditioning]:
    """What a model is told for everything that the two pools say."""
    return encode_prompts(pipeline, [*star_examples().texts(), *circle_examples().texts()])


def star_batch(pipeline: Any, count: int = 3) -> Batch:
    """A forget batch that the pipeline's UNet can read."""
    return star_examples().draw(count, told_of(pipeline), 1000, 0, "test")


def perturb(module: nn.Module, size: float = 0.05) -> None:
    """Moves every parameter a little, and not by the same amount."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn_like(p))
