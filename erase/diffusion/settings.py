"""The settings of an erasure that belong to the diffusion path, and the plan that they make."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase import embedded
from erase.components import STRICT, Name
from erase.config import build, read_yaml
from erase.diffusion.concepts import LatentSettings, Retain, Target
from erase.diffusion.losses import FORGET_LOSSES, ForgetLoss, NegativeGuidance, RetainLoss, TeacherDistillation
from erase.diffusion.prompts import TargetPrompts, names, retain_prompts, target_prompts, words_of
from erase.errors import UserError, collect
from erase.vocabulary import Vocabulary

WORDINGS = {
    "neutral": "needs_direction",
    "concept_prompt": "needs_direction",
    "anchor": "needs_anchor",
    "anchor_prompt": "needs_anchor",
}
"""A target's wordings beside its prompts, and what a forget loss says of itself that looks at them."""
WITHOUT = ("neutral", "anchor", "anchor_prompt")
"""Those that are to be without the concept."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ErasureSettings:
    """What to erase from which model, and by which losses."""

    model: Name = embedded.NAME
    """`shapes` (embedded), or a diffusers folder or Hub id of Stable Diffusion 1.x, 2.x or SDXL"""
    revision: str | None = None
    """branch, tag or commit of a Hub id"""
    vocabulary: Name | None = None
    """a YAML file with `domains` and `templates`, or `shapes`; default: the embedded model's own, else none"""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    """the concepts to erase, each with its prompts, its anchor and its weight"""
    retain: Retain = Retain()
    """what must stay"""
    forget_loss: Annotated[ForgetLoss, Field(discriminator="name")] = NegativeGuidance()
    """what the model learns to do on the targets' prompts"""
    retain_loss: Annotated[RetainLoss, Field(discriminator="name")] = TeacherDistillation()
    """what holds the model in place elsewhere"""
    latents: LatentSettings = LatentSettings()
    """the pictures that both losses are taken on"""


@plain_dataclass(frozen=True)
class Plan:
    """What the settings come to, before any model is loaded."""

    targets: tuple[TargetPrompts, ...]
    retain: tuple[str, ...]
    """Prompts to keep; empty where the retain loss learns from images."""


def read_vocabulary(name: str | None, model: str) -> Vocabulary | None:
    """The vocabulary that a run speaks, if it has one."""
    if name == embedded.NAME or (name is None and model == embedded.NAME):
        return embedded.VOCABULARY
    if name is None:
        return None
    if not os.path.isfile(name):
        raise UserError(f"vocabulary: {name}: there is no such file; `shapes` is the embedded model's")
    try:
        return build(Vocabulary, read_yaml(Path(name)))
    except UserError as error:
        raise UserError(*(f"vocabulary: {name}: {problem}" for problem in error.problems)) from None


def idle_settings(settings: ErasureSettings) -> Iterator[str]:
    """Settings that would do nothing beside the others: whoever gives them expects what does not happen."""
    if settings.revision is not None and (settings.model == embedded.NAME or os.path.isdir(settings.model)):
        yield f"revision: {settings.model} is no Hub id, so it has none; found {settings.revision}; leave it out"
    if settings.retain.images is not None and not settings.retain_loss.needs_images:
        yield (
            f"retain.images: {settings.retain_loss.name} does not look at images; found {settings.retain.images}; "
            "leave them out, or choose retain_loss.name denoising"
        )
    if settings.retain_loss.needs_images:
        listed = None if settings.retain.prompts == "auto" else settings.retain.prompts
        for key, given in (("prompts", listed), ("prompts_file", settings.retain.prompts_file)):
            if given is not None:
                yield (
                    f"retain.{key}: {settings.retain_loss.name} keeps images, not prompts; found {given}; "
                    "leave it out, or choose retain_loss.name teacher_distillation"
                )
    for index, target in enumerate(settings.targets):
        yield from idle_words(target, f"targets.{index}", settings.forget_loss)
        yield from repeated_words(target, f"targets.{index}", settings)


def repeated_words(target: Target, key: str, settings: ErasureSettings) -> Iterator[str]:
    """Wordings that are to be without the concept, and name it, or another that is erased in the same run."""
    words = words_of(settings.targets)
    for name in WITHOUT:
        value, is_looked_at = getattr(target, name), getattr(settings.forget_loss, WORDINGS[name])
        if value is not None and is_looked_at and names(value, words):
            yield f"{key}.{name}: {value!r} names a target of this run, which it is to be without; word it otherwise"


def idle_words(target: Target, key: str, loss: ForgetLoss) -> Iterator[str]:
    """A target's wordings that the forget loss does not look at, or that another one overrules."""
    given = {name: value for name in WORDINGS if (value := getattr(target, name)) is not None}
    for name, value in given.items():
        if not getattr(loss, WORDINGS[name]):
            who = " or ".join(other for other, made in FORGET_LOSSES.items() if getattr(made, WORDINGS[name]))
            yield (
                f"{key}.{name}: {loss.name} does not look at it; found {value!r}; leave it out, or choose "
                f"forget_loss.name {who}"
            )
    if loss.needs_direction and {"neutral", "concept_prompt"} <= given.keys():
        yield (
            f"{key}.concept_prompt: has no effect beside {key}.neutral, which says the direction; "
            f"found {target.concept_prompt!r}; leave out one of the two"
        )
    if loss.needs_anchor and {"anchor", "anchor_prompt"} <= given.keys():
        yield (
            f"{key}.anchor: has no effect beside {key}.anchor_prompt, which says what to redirect to; "
            f"found {target.anchor!r}; leave out one of the two"
        )


def kept_too(key: str, erased: Collection[str], kept: Sequence[str]) -> Iterator[str]:
    """Prompts to keep that are a target's, too: the first of them, and how many there are."""
    if both := [prompt for prompt in dict.fromkeys(kept) if prompt in erased]:
        count = f" and {len(both) - 1} more are" if len(both) > 1 else " is"
        yield (
            f"retain: {both[0]!r}{count} to be kept, and to be erased as prompts of {key}; take what is in both out "
            "of one of them"
        )


def make_plan(settings: ErasureSettings) -> Plan:
    """Works out every prompt, and reports all that is wrong with them at once."""
    vocabulary = read_vocabulary(settings.vocabulary, settings.model)
    problems = list(idle_settings(settings))
    needs = (settings.forget_loss.needs_anchor, settings.forget_loss.needs_direction)
    targets = [
        collect(problems, partial(target_prompts, target, f"targets.{index}", vocabulary, *needs))
        for index, target in enumerate(settings.targets)
    ]
    retain: tuple[str, ...] | None = ()
    if settings.retain_loss.needs_images:
        if settings.retain.images is None:
            problems.append(f"retain.images: {settings.retain_loss.name} learns from captioned images; found none")
        elif not os.path.isdir(settings.retain.images):
            problems.append(f"retain.images: {settings.retain.images} is no folder")
    else:
        retain = collect(problems, lambda: retain_prompts(settings.retain, settings.targets, vocabulary))
    for index, target in enumerate(targets):
        problems += kept_too(f"targets.{index}", target.prompts if target else (), retain or ())
    if problems:
        raise UserError(*problems)
    return Plan(tuple(target for target in targets if target), retain or ())
