"""Pictures that show nothing of Shapes World: what the classifier must call ``none``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from erase.shapes.build.drawings import COMBINATIONS, Drawings

KINDS = ("noise", "blank", "blur", "blend", "half_denoised")


def make_nothings(kind: str, drawings: Drawings, count: int, seed: int, pipeline: Any) -> Tensor:
    """``[count, 3, h, w]`` in [-1, 1] of one of :data:`KINDS`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(drawings), (count,), generator=generator)
    images = drawings.images[chosen]
    if kind == "noise":
        return noise(count, images.shape[-1], generator)
    if kind == "blank":
        return (torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1).expand_as(images).contiguous()
    if kind == "blur":
        return torch.stack(
            [
                gaussian_blur(image, [31, 31], [4.5 + 3 * float(s)])
                for image, s in zip(images, torch.rand(count, generator=generator), strict=True)
            ]
        )
    if kind == "blend":
        return blend(drawings, chosen, generator)
    if kind == "half_denoised":
        return half_denoised(images, pipeline, generator)
    raise ValueError(f"kind {kind!r} is unknown; known: {', '.join(KINDS)}")


def noise(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Noise of every grain: each picture's is enlarged from 2 to 32 cells a side, of its own strength and mean."""
    pictures = []
    for index in range(count):
        cells = int(torch.randint(2, size + 1, (), generator=generator)) if index % 2 else size
        strength, mean = 0.25 + torch.rand((), generator=generator), torch.rand(3, 1, 1, generator=generator) * 2 - 1
        grain = torch.randn(1, 3, cells, cells, generator=generator) * strength
        pictures.append((F.interpolate(grain, size=(size, size), mode="bilinear")[0] + mean).clamp(-1, 1))
    return torch.stack(pictures)


def blend(drawings: Drawings, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """The even mean of two drawings that differ in object, color and style."""
    names = torch.tensor([[hash_index(c.concepts[d], d) for d in ("object", "color", "style")] for c in COMBINATIONS])
    partner = torch.randint(len(drawings), chosen.shape, generator=generator)
    while True:
        same = (names[drawings.combination[chosen]] == names[drawings.combination[partner]]).any(1)
        if not same.any():
            break
        partner = torch.where(same, torch.randint(len(drawings), chosen.shape, generator=generator), partner)
    share = 0.42 + 0.16 * torch.rand(len(chosen), 1, 1, 1, generator=generator)
    return share * drawings.images[chosen] + (1 - share) * drawings.images[partner]


def hash_index(concept: str, domain: str) -> int:
    """The concept's place in its domain."""
    from erase.embedded import VOCABULARY

    return VOCABULARY.domains[domain].index(concept)


@torch.no_grad()
def half_denoised(images: Tensor, pipeline: Any, generator: torch.Generator) -> Tensor:
    """Decoded latents from the middle of the schedule: half as they are, half the unguided guess at x_0 near noise."""
    vae, scheduler = pipeline.vae, pipeline.scheduler
    latents = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
    grain = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(450, 950, (len(images),), generator=generator)
    noisy = scheduler.add_noise(latents, grain, timesteps)
    guess_from = torch.full_like(timesteps, 990)
    empty = pipeline.text_encoder(pipeline.tokenizer([""], padding="max_length", return_tensors="pt").input_ids)[0]
    start = torch.randn(latents.shape, generator=generator)
    predicted = pipeline.unet(start, guess_from, empty.expand(len(images), -1, -1)).sample
    signal = scheduler.alphas_cumprod[990]
    guess = (start - (1 - signal).sqrt() * predicted) / signal.sqrt()
    take_guess = (torch.arange(len(images)) % 2 == 0).view(-1, 1, 1, 1)
    return vae.decode(torch.where(take_guess, guess, noisy) / vae.config.scaling_factor).sample.clamp(-1, 1)
