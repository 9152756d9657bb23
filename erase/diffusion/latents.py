"""Latents that the frozen base generates once, in batches, and that are kept on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from erase.diffusion.concepts import LatentSettings
from erase.diffusion.denoiser import EvaluationCounter
from erase.errors import UserError
from erase.provenance import hash_json, new_folder
from erase.randomness import derive

Item = TypeVar("Item")


@dataclass(frozen=True)
class LatentRequest:
    """All that settles what the latents are; its hash is the key they are cached under."""

    base: str
    """Hash of the base's weights and settings."""
    prompts: tuple[str, ...]
    seed: int
    scheduler: str
    steps: int
    guidance_scale: float

    def key(self) -> str:
        """SHA-256, the cache folder's name."""
        return hash_json([self.base, self.prompts, self.seed, self.scheduler, self.steps, self.guidance_scale])


def spread(items: Sequence[Item], count: int, seed: int) -> tuple[Item, ...]:
    """``count`` items: every one in a shuffled order, again and again; none is left out before one repeats."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(derive(seed, "spread")))
    return tuple(items[int(order[index % len(items)])] for index in range(count))


def default_cache() -> Path:
    """``$ERASE_CACHE``, or ``~/.cache/erase``."""
    return Path(os.environ.get("ERASE_CACHE") or Path.home() / ".cache" / "erase")


@dataclass(frozen=True)
class Latents:
    """Latents, and what they cost whoever made them."""

    tensor: Tensor
    """``[n, 4, h, w]``, one for each of the request's prompts."""
    evaluations: int
    """Denoiser evaluations, one an example; a cached file says how many its maker took."""


def cached_latents(pipeline: Any, request: LatentRequest, settings: LatentSettings, quiet: bool = False) -> Latents:
    """The request's latents, from the cache or made now (and cached)."""
    folder = (settings.cache_dir or default_cache()) / f"latents-{request.key()[:32]}"
    file = folder / "latents.safetensors"
    try:
        with safe_open(file, "pt") as cached:
            return Latents(cached.get_tensor("latents"), int(cached.metadata()["evaluations"]))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError):
        counter = EvaluationCounter()
        with counter.watch(pipeline.unet):
            latents = make_latents(pipeline, request, settings.batch_size, quiet)
    try:
        with new_folder(folder) as temporary:
            about = {"key": request.key(), "evaluations": str(counter.count)}
            save_file({"latents": latents}, temporary / "latents.safetensors", about)
    except (OSError, SafetensorError) as error:
        raise UserError(f"latents.cache_dir: {folder} could not be written: {error}") from None
    return Latents(latents, counter.count)


@torch.no_grad()
def make_latents(pipeline: Any, request: LatentRequest, batch_size: int, quiet: bool = False) -> Tensor:
    """Samples with the pipeline itself; each latent has a generator of its own, so batches do not matter."""
    made = []
    with tqdm(total=len(request.prompts), desc="latents of the base", disable=quiet) as bar:
        for start in range(0, len(request.prompts), batch_size):
            prompts = list(request.prompts[start : start + batch_size])
            seeds = [derive(request.seed, "latent", start + offset) for offset in range(len(prompts))]
            made.append(
                pipeline(
                    prompts,
                    num_inference_steps=request.steps,
                    guidance_scale=request.guidance_scale,
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    output_type="latent",
                ).images.cpu()
            )
            bar.update(len(prompts))
    return torch.cat(made)
