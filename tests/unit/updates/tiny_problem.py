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
    """A tiny UNet, always the same, that is to keep one random target and to leave another."""
    source = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    unet = tiny_unet().train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    precision = (lambda: torch.autocast("cpu", torch.bfloat16)) if autocast else nullcontext
    denoiser = Denoiser(unet, make_schedule(make_scheduler()), precision)

    def objective(sign: float) -> Objective:
        noisy, target = torch.randn(2, 2, 4, 8, 8, generator=source)
        prompts = Conditioning(torch.randn(2, 5, WIDTH, generator=source))

        def evaluate() -> Iterator[Tensor]:
            yield sign * (denoiser(noisy, torch.tensor([100, 700]), prompts) - target).pow(2).mean()

        return evaluate

    return unet, Problem(list(unet.parameters()), objective(1.0), objective(-0.7))
