"""What a denoiser is told of its prompts: one text encoder's states, or two with a pooled embedding and size ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOGETHER = 64
"""Prompts that are encoded at once."""
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Of ``b`` examples; a model of one text encoder, as Stable Diffusion 1.x and 2.x, has states alone."""

    states: Tensor
    """``[b, tokens, width]``, of both text encoders side by side where there are two."""
    pooled: Tensor | None = None
    """``[b, width]``: SDXL's ``text_embeds``."""
    ids: Tensor | None = None
    """``[b, 6]``: SDXL's ``time_ids``, in pixels: height, width, top, left, height, width."""

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, chosen: slice) -> Conditioning:
        return self._each(lambda part: part[chosen])

    def to(self, device: torch.device) -> Conditioning:
        """The same on another device."""
        return self._each(lambda part: part.to(device))

    def float(self) -> Conditioning:
        """The same in float32."""
        return self._each(Tensor.float)

    def clone(self) -> Conditioning:
        """The same in memory of its own."""
        return self._each(Tensor.clone)

    def zeros(self) -> Conditioning:
        """The same sizes, and nothing said."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Conditioning(torch.zeros_like(self.states), pooled, self.ids)

    def expand(self, count: int) -> Conditioning:
        """One example's, for ``count`` of them; no memory is spent."""
        return self._each(lambda part: part.expand(count, *part.shape[1:]))

    def says_the_same(self, other: Conditioning) -> bool:
        """Whether both are equal to the last bit."""
        return all(torch.equal(*pair) for pair in zip(self.parts(), other.parts(), strict=True))

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that there are."""
        return tuple(part for part in (self.states, self.pooled, self.ids) if part is not None)

    @property
    def nbytes(self) -> int:
        """Of all parts."""
        return sum(part.nbytes for part in self.parts())

    def arguments(self) -> dict[str, Any]:
        """What the UNet takes beside latents, timesteps and states."""
        if self.pooled is None:
            return {}
        return {"added_cond_kwargs": {"text_embeds": self.pooled, "time_ids": self.ids}}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning(*map(change, self.parts()))


def together(several: Sequence[Conditioning]) -> Conditioning:
    """All of them, one after the other."""
    return Conditioning(*map(torch.cat, zip(*(each.parts() for each in several), strict=True)))


@torch.no_grad()
def encode(pipeline: Any, prompts: Sequence[str]) -> Conditioning:
    """As the pipeline itself would, on its text encoder's device and in its dtype; a prompt that is too long is cut."""
    states, _, *pooled = pipeline.encode_prompt(
        prompt=list(prompts),
        device=pipeline.text_encoder.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    return Conditioning(states, pooled[0], _size_ids(pipeline, states)) if pooled else Conditioning(states)


def _size_ids(pipeline: Any, states: Tensor) -> Tensor:
    """The model's own size for both the original and the target, nothing cropped: the pipeline's default."""
    side = float(pipeline.default_sample_size * pipeline.vae_scale_factor)
    return states.new_tensor([side, side, 0.0, 0.0, side, side]).expand(len(states), 6)


def no_prompt(pipeline: Any, empty: Conditioning) -> Conditioning:
    """What guidance pushes away from: the empty prompt's, or zeros where the pipeline says so, as SDXL's base does."""
    return empty.zeros() if pipeline.config.get("force_zeros_for_empty_prompt", False) else empty


def encode_prompts(pipeline: Any, prompts: Sequence[str], batch_size: int = TOGETHER) -> dict[str, Conditioning]:
    """Each distinct prompt's conditioning, ``b`` = 1, in float32 on the CPU; the empty prompt's is guidance's."""
    distinct = list(dict.fromkeys(prompts))
    told: dict[str, Conditioning] = {}
    for start in range(0, len(distinct), batch_size):
        chunk = distinct[start : start + batch_size]
        encoded = encode(pipeline, chunk).float().to(CPU)
        told |= {prompt: encoded[row : row + 1] for row, prompt in enumerate(chunk)}
    if "" in told:
        told[""] = no_prompt(pipeline, told[""])
    return told


def look_up(told: Mapping[str, Conditioning], prompts: Sequence[str]) -> Conditioning:
    """The prompts' conditioning, in their order."""
    return together([told[prompt] for prompt in prompts])
