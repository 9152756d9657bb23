"""A UNet and its noise schedule behind one interface; losses never ask which prediction the model makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


@dataclass(frozen=True)
class Denoiser:
    """Predicts noise (epsilon) or velocity (v), as the schedule says, in float32."""

    unet: UNet2DConditionModel
    scheduler: Any
    """A diffusers scheduler: its ``alphas_cumprod`` and ``prediction_type`` are used, no sampling steps."""
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def __call__(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """``[b, 4, h, w]`` latents at ``[b]`` timesteps, given ``[b, tokens, width]`` prompt states."""
        with self.autocast():
            return self.unet(noisy, timesteps, states).sample.float()

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise."""
        return self.scheduler.add_noise(latents, noise, timesteps)

    def truth(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect denoiser would predict for this x_t: the noise, or the velocity."""
        if self.scheduler.config.prediction_type == "v_prediction":
            return self.scheduler.get_velocity(latents, noise, timesteps)
        return noise

    def of(self, unet: UNet2DConditionModel) -> Denoiser:
        """The same schedule with another UNet."""
        return replace(self, unet=unet)


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


@torch.no_grad()
def encode_prompts(pipeline: Any, prompts: list[str], batch_size: int = 64) -> dict[str, Tensor]:
    """Each distinct prompt's hidden states, ``[tokens, width]``."""
    distinct = list(dict.fromkeys(prompts))
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    states: dict[str, Tensor] = {}
    for start in range(0, len(distinct), batch_size):
        chunk = distinct[start : start + batch_size]
        ids = tokenizer(
            chunk, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
        ).input_ids
        states.update(zip(chunk, encoder(ids.to(encoder.device))[0].float(), strict=True))
    return states
