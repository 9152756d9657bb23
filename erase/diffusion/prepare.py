"""Loads the base and makes what training draws from: latents of its own, and what the prompts say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.diffusion.batch import Examples, joined
from erase.diffusion.captioned_images import captioned_images
from erase.diffusion.concepts import LatentSettings
from erase.diffusion.conditioning import Conditioning, encode_prompts
from erase.diffusion.denoiser import make_denoiser
from erase.diffusion.latents import LatentRequest, cached_latents, spread
from erase.diffusion.pipelines import find_pipeline, load_pipeline, unknown_words, weighted_parts
from erase.diffusion.prompts import TargetPrompts, names, words_of
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
    told: dict[str, Conditioning]
    """What the model is told for each prompt of the two."""
    latent_evaluations: int
    """Denoiser evaluations that making the latents took, now or when they were cached."""
    prompt_hashes: dict[str, str]
    """SHA-256 of the forget and of the retain prompts."""
    data_hashes: dict[str, str]
    """SHA-256 of the wordings beside the forget prompts, and of the images to keep, if there are any."""


def load_base(settings: ErasureSettings, plan: Plan, device: torch.device) -> Base:
    """The checked base on the device; a prompt with a word it does not know is refused, and what cannot be trained."""
    folder = find_pipeline(settings.model, settings.revision)
    pipeline = load_pipeline(folder)
    make_denoiser(pipeline)
    refuse(
        f"{key}: {prompt!r} has a word that the model's tokenizer does not know; use words of its vocabulary"
        for key, prompts in keyed_prompts(plan).items()
        for prompt in unknown_words(pipeline, prompts)
    )
    for part in weighted_parts(pipeline).values():
        part.to(device)
    return Base(pipeline, folder, hash_folder(folder))


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


def prepare(base: Base, settings: ErasureSettings, plan: Plan, seed: int, quiet: bool = False) -> Prepared:
    """Makes or reads the latents and encodes the prompts; processes that do this at a time share the making."""
    pool = _Pool(base, settings.latents, seed, quiet)
    forget = _forget_examples(pool, plan.targets)
    data = {"wordings": hash_json([(t.concepts, t.baselines, t.anchors) for t in plan.targets])}
    if settings.retain.images is not None and settings.retain_loss.needs_images:
        shows = {prompt for target in plan.targets for prompt in target.prompts}
        retain, data["images"] = read_images(settings.retain.images, base.pipeline, words_of(settings.targets), shows)
        shown = retain
    else:
        prompts = spread(plan.retain, settings.latents.retain, seed)
        retain, shown = Examples(pool.latents(prompts, seed), prompts), forget
    if settings.retain.empty_prompt:
        retain = joined([retain, _empty_prompts(shown, max(1, round(len(retain) / EMPTY_SHARE)), seed)])
    return Prepared(
        forget=forget,
        retain=retain,
        told=encode_prompts(base.pipeline, [*forget.texts(), *retain.texts()]),
        latent_evaluations=sum(pool.spent),
        prompt_hashes={
            "forget": hash_json([target.prompts for target in plan.targets]),
            "retain": hash_json(sorted(set(retain.prompts)) if settings.retain_loss.needs_images else plan.retain),
        },
        data_hashes=data,
    )


def read_images(
    folder: Path, pipeline: Any, targets: Sequence[str], shows: Collection[str] = ()
) -> tuple[Examples, str]:
    """Captioned images to keep, and their hash; a caption with an unknown word, or of a target, is refused.

    ``targets`` are the words of what is erased, ``shows`` the prompts that show it.
    """
    examples, digest = captioned_images(folder, pipeline)
    captions = list(dict.fromkeys(examples.prompts))
    found = {caption: "names" for caption in captions if names(caption, targets)}
    found |= {caption: "is also a prompt of" for caption in captions if caption in shows and caption not in found}
    refuse(
        f"retain.images: the caption {caption!r} {how} a target of this run; a target cannot be kept too"
        for caption, how in found.items()
    )
    refuse(
        f"retain.images: {caption!r} has a word that the model's tokenizer does not know; use words of its vocabulary"
        for caption in dict.fromkeys(unknown_words(pipeline, list(examples.prompts)))
    )
    return examples, digest


@dataclass(frozen=True)
class _Pool:
    """Makes examples whose latents show their prompts."""

    base: Base
    settings: LatentSettings
    seed: int
    quiet: bool
    spent: list[int] = field(default_factory=list)
    """Denoiser evaluations of each request so far."""

    def latents(self, prompts: tuple[str, ...], seed: int) -> Tensor:
        """``[n, 4, h, w]`` latents of the prompts, mapped from the cache."""
        request = LatentRequest(
            base=self.base.hash,
            prompts=prompts,
            seed=seed,
            scheduler=type(self.base.pipeline.scheduler).__name__,
            steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale,
        )
        made = cached_latents(self.base.pipeline, request, self.settings, self.quiet)
        self.spent.append(made.evaluations)
        return made.tensor


def _forget_examples(pool: _Pool, targets: Sequence[TargetPrompts]) -> Examples:
    """The targets' examples together; each target has an equal share of the latents."""
    parts = []
    for index, target in enumerate(targets):
        share = max(1, pool.settings.forget // len(targets))
        parts.append(_target_examples(pool, target, index, share, shows=True))
        neutral = pool.settings.neutral // len(targets)
        if neutral and any(target.without):
            parts.append(_target_examples(pool, target, index, neutral, shows=False))
    return joined(parts)


def _empty_prompts(shown: Examples, count: int, seed: int) -> Examples:
    """The empty prompt on up to ``count`` of the pictures: those to forget, or what is kept where that has images."""
    chosen = spread(range(len(shown)), min(count, len(shown)), seed)
    return Examples(shown.latents[list(chosen)], ("",) * len(chosen))


def _target_examples(pool: _Pool, target: TargetPrompts, index: int, count: int, shows: bool) -> Examples:
    """Prompts of one target, on pictures of themselves or, if not ``shows``, of their wording without the concept."""
    rows = [row for row, without in enumerate(target.without) if shows or without]
    chosen = [rows[place] for place in spread(range(len(rows)), count, pool.seed + index)]

    def pick(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(texts[row] for row in chosen)

    return Examples(
        latents=pool.latents(pick(target.prompts if shows else target.without), pool.seed + index),
        prompts=pick(target.prompts),
        concepts=pick(target.concepts),
        baselines=pick(target.baselines),
        anchors=None if target.anchors is None else pick(target.anchors),
        weights=(target.target.weight,) * count,
        shows=(shows,) * count,
    )
