"""A tiny real UNet with two objectives that conflict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from erase.diffusion.conditioning import Conditioning
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.prediction import make_schedule
from erase.protocols import Objective
from erase.shapes.build.denoiser import make_scheduler
from tests.tiny import WIDTH, tiny_unet
from tests.unit.updates.problems import Problem


def unet_problem(autocast: bool = False, checkpointing: bool = False) -> tuple[nn.Module, Problem]:
    """A tiny UNet, always the same, that is to keep a target and to leave one that is much like it."""
    source = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    unet = tiny_unet().train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    precision = (lambda: torch.autocast("cpu", torch.bfloat16)) if autocast else nullcontext
    denoiser = Denoiser(unet, make_schedule(make_scheduler()), precision)

    noisy, target, other = torch.randn(3, 2, 4, 8, 8, generator=source)
    prompts = Conditioning(torch.randn(2, 5, WIDTH, generator=source))

    def objective(sign: float, target: Tensor) -> Objective:
        def evaluate() -> Iterator[Tensor]:
            yield sign * (denoiser(noisy, torch.tensor([100, 700]), prompts) - target).pow(2).mean()

        return evaluate

    return unet, Problem(list(unet.parameters()), objective(1.0, target), objective(-0.7, target + 0.8 * other))
