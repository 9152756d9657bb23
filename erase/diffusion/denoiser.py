"""A UNet and its noise schedule behind one interface; losses never ask which prediction the model makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from erase.diffusion.conditioning import Conditioning
from erase.diffusion.prediction import Schedule, make_schedule
from erase.errors import UserError

Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Denoiser:
    """Predicts noise, velocity or flow, as its schedule says, in float32."""

    unet: UNet2DConditionModel
    schedule: Schedule
    autocast: Autocast = nullcontext

    def __call__(self, noisy: Tensor, timesteps: Tensor, prompt: Conditioning) -> Tensor:
        """``[b, 4, h, w]`` latents at ``[b]`` timesteps, given what ``b`` prompts say."""
        with self.autocast():
            return self.unet(noisy, timesteps, prompt.states, **prompt.arguments()).sample.float()

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, the schedule's mixture of latents and noise."""
        return self.schedule.noisy(latents, noise, timesteps)

    def truth(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect denoiser would predict for this x_t, in the model's own kind of prediction."""
        return self.schedule.truth(latents, noise, timesteps)

    def of(self, unet: UNet2DConditionModel) -> Denoiser:
        """The same schedule with another UNet."""
        return replace(self, unet=unet)


def make_denoiser(pipeline: Any, autocast: Autocast = nullcontext) -> Denoiser:
    """The pipeline's UNet on its schedule; one that needs to be told more than its prompts is refused."""
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise UserError(
            "model: its UNet takes the guidance scale as an input (time_cond_proj_dim), as one distilled into few "
            "steps does, which cannot be trained here; erase from the model that it was distilled from"
        )
    return Denoiser(pipeline.unet, make_schedule(pipeline.scheduler, pipeline.unet.device), autocast)


class EvaluationCounter:
    """Counts denoiser evaluations, one for each example in a forward pass."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Counts the module's forward passes while the body runs."""
        handle = module.register_forward_pre_hook(self._add)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.count += len(arguments[0])
