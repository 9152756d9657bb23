"""Loads the base and makes what training draws from: latents of its own, and the prompts' states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.diffusion.batch import Examples
from erase.diffusion.captioned_images import captioned_images
from erase.diffusion.concepts import LatentSettings
from erase.diffusion.denoiser import encode_prompts
from erase.diffusion.latents import LatentRequest, cached_latents, spread
from erase.diffusion.pipelines import find_pipeline, load_pipeline, unknown_words
from erase.diffusion.prompts import TargetPrompts, names
from erase.diffusion.settings import ErasureSettings, Plan
from erase.errors import refuse
from erase.provenance import hash_folder, hash_json

EMPTY_SHARE = 4
"""One example with the empty prompt to so many with a prompt to keep, as far as the targets' latents go."""


@dataclass(frozen=True)
class Base:
    """A loaded base model and where it came from."""

    pipeline: Any
    folder: Path
    hash: str


@dataclass(frozen=True)
class Prepared:
    """Everything that an erasure trains on."""

    forget: Examples
    retain: Examples
    states: dict[str, Tensor]
    latent_evaluations: int
    """Denoiser evaluations that making the latents took, now or when they were cached."""
    prompt_hashes: dict[str, str]
    """SHA-256 of the forget and of the retain prompts."""


def load_base(settings: ErasureSettings, plan: Plan, device: torch.device) -> Base:
    """The checked base on the device; a prompt with a word it does not know is refused."""
    folder = find_pipeline(settings.model, settings.revision)
    pipeline = load_pipeline(folder)
    refuse(
        f"{key}: {prompt!r} has a word that the model's tokenizer does not know; use words of its vocabulary"
        for key, prompts in keyed_prompts(plan).items()
        for prompt in unknown_words(pipeline, prompts)
    )
    return Base(pipeline.to(device), folder, hash_folder(folder))


def keyed_prompts(plan: Plan) -> dict[str, list[str]]:
    """Every prompt of a plan, by the key of the configuration that it comes from."""
    keyed = {"retain.prompts": list(plan.retain)}
    for index, target in enumerate(plan.targets):
        key = f"targets.{index}"
        keyed[f"{key}.prompts"] = list(target.prompts)
        keyed[f"{key}.concept_prompt"] = sorted(set(target.concepts) - set(target.prompts))
        keyed[f"{key}.neutral"] = sorted(set(target.baselines))
        keyed[f"{key}.anchor"] = list(dict.fromkeys(target.anchors or ()))
    return keyed


def prepare(
    base: Base,
    settings: ErasureSettings,
    plan: Plan,
    seed: int,
    quiet: bool = False,
    in_turn: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Prepared:
    """Makes or reads the latents and encodes the prompts; ``in_turn`` lets one process make the cache first."""
    pool = _Pool(base, settings.latents, seed, quiet)
    with in_turn():
        forget = _forget_examples(pool, plan.targets)
        if settings.retain.images is not None and settings.retain_loss.needs_images:
            words = [word for target in settings.targets for word in (target.concept, *target.synonyms)]
            retain = read_images(settings.retain.images, base.pipeline, words)
        else:
            retain = pool.examples(spread(plan.retain, settings.latents.retain, seed))
            if settings.retain.empty_prompt:
                few = min(len(forget), max(1, round(len(retain) / EMPTY_SHARE)))
                retain = retain.joined(Examples(forget.latents[:few], ("",) * few))
    return Prepared(
        forget=forget,
        retain=retain,
        states=encode_prompts(base.pipeline, [*forget.texts(), *retain.texts()]),
        latent_evaluations=sum(pool.spent),
        prompt_hashes={
            "forget": hash_json([target.prompts for target in plan.targets]),
            "retain": hash_json(sorted(set(retain.prompts)) if settings.retain_loss.needs_images else plan.retain),
        },
    )


def read_images(folder: Path, pipeline: Any, targets: Sequence[str]) -> Examples:
    """Captioned images to keep; a caption with an unknown word, or one that names a target, is refused."""
    examples = captioned_images(folder, pipeline)
    refuse(
        f"retain.images: the caption {caption!r} names a target of this run; a target cannot be kept too"
        for caption in dict.fromkeys(examples.prompts)
        if names(caption, targets)
    )
    refuse(
        f"retain.images: {caption!r} has a word that the model's tokenizer does not know; use words of its vocabulary"
        for caption in dict.fromkeys(unknown_words(pipeline, list(examples.prompts)))
    )
    return examples


@dataclass(frozen=True)
class _Pool:
    """Makes examples whose latents show their prompts."""

    base: Base
    settings: LatentSettings
    seed: int
    quiet: bool
    spent: list[int] = field(default_factory=list)
    """Denoiser evaluations of each request so far."""

    def examples(self, prompts: tuple[str, ...]) -> Examples:
        """Latents of the prompts, on the base's device."""
        scheduler = self.base.pipeline.scheduler
        request = LatentRequest(
            base=self.base.hash,
            prompts=prompts,
            seed=self.seed,
            scheduler=type(scheduler).__name__,
            steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale,
        )
        latents = cached_latents(self.base.pipeline, request, self.settings, self.quiet)
        self.spent.append(latents.evaluations)
        return Examples(latents.tensor.to(self.base.pipeline.device), prompts)


def _forget_examples(pool: _Pool, targets: Sequence[TargetPrompts]) -> Examples:
    """The targets' examples together; each target has an equal share of the latents."""
    share = max(1, pool.settings.forget // len(targets))
    prompts: list[str] = []
    concepts: list[str] = []
    baselines: list[str] = []
    anchors: list[str] = []
    weights: list[float] = []
    for index, target in enumerate(targets):
        chosen = spread(target.prompts, share, pool.seed + index)
        prompts += chosen
        says = dict(zip(target.prompts, zip(target.concepts, target.baselines, strict=True), strict=True))
        concepts += [says[prompt][0] for prompt in chosen]
        baselines += [says[prompt][1] for prompt in chosen]
        weights += [target.target.weight] * share
        if target.anchors is not None:
            redirect = dict(zip(target.prompts, target.anchors, strict=True))
            anchors += [redirect[prompt] for prompt in chosen]
    made = pool.examples(tuple(prompts))
    return Examples(
        latents=made.latents,
        prompts=made.prompts,
        concepts=tuple(concepts),
        anchors=tuple(anchors) or None,
        weights=tuple(weights),
        baselines=tuple(baselines),
    )
