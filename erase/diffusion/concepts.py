"""What is to be forgotten and what is to be kept, as the user says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT, Place


@dataclass(frozen=True, config=STRICT)
class Target:
    """A concept to erase.

    Its prompts are, together: ``prompts``, those of ``prompts_file``, and ``templates`` filled with the
    concept and its synonyms. With none of these they are the vocabulary's captions of the concept.
    """

    concept: Annotated[str, Field(min_length=1)]
    """the word or words to erase, such as `star` or `Van Gogh`"""
    neutral: str | None = None
    """negative_guidance: what replaces the concept's words to leave the rest of each prompt: `an artist` for
    `Van Gogh`. The concept is then guided away from as its words change the prompt, c = p and n = the prompt without
    them in eps*(p) - eta [eps*(c) - eps*(n)]. Default: the vocabulary's way of leaving the concept out, if it has
    one"""
    concept_prompt: Annotated[str, Field(min_length=1)] | None = None
    """negative_guidance: the concept alone, to guide away from c = this against n = the empty prompt instead; default,
    where there is no neutral wording: the vocabulary's caption of the concept, else the concept's words"""
    synonyms: tuple[str, ...] = ()
    """other words for it, which fill the templates too"""
    templates: tuple[str, ...] = ()
    """sentences with `{}` where the concept goes"""
    prompts: tuple[str, ...] = ()
    """prompts that show the concept"""
    prompts_file: Place | None = None
    """a CSV with a `prompt` column"""
    anchor: str | None = None
    """anchor_redirection: what replaces the concept's words in each prompt"""
    anchor_prompt: str | None = None
    """anchor_redirection: one whole prompt to redirect to, instead of `anchor`"""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """factor on the target's share of the forget loss"""


@dataclass(frozen=True, config=STRICT)
class Retain:
    """What must stay: prompts for teacher_distillation, captioned images for denoising."""

    prompts: Literal["auto"] | tuple[str, ...] = "auto"
    """`auto`: the vocabulary's captions without the targets; or a list; [] with a file for the file alone"""
    prompts_file: Place | None = None
    """a CSV with a `prompt` column, added to the list, or to `auto`'s captions where there is a vocabulary"""
    empty_prompt: bool = True
    """hold the empty prompt too, from which guidance pushes away: on the targets' latents, or with denoising on a
    quarter of the images, as bases are trained"""
    images: Place | None = None
    """a folder of images with captions (`metadata.jsonl` or `metadata.csv`: file_name, text), for denoising"""


@dataclass(frozen=True, config=STRICT)
class LatentSettings:
    """The pictures that x_t is made from: generated once by the frozen base, and cached."""

    forget: Annotated[int, Field(ge=1)] = 80
    """latents of target prompts, over all targets"""
    neutral: Annotated[int, Field(ge=0)] = 40
    """latents of the targets' prompts without the concept (their neutral or anchor wording, where they have one),
    on which the targets' prompts are to predict what that wording does"""
    retain: Annotated[int, Field(ge=1)] = 160
    """latents of prompts to keep"""
    steps: Annotated[int, Field(ge=1, le=1000)] = 10
    """sampling steps for each"""
    guidance_scale: Annotated[float, Field(ge=0)] = 4.0
    """classifier-free guidance; 1 or less turns it off"""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """latents made at a time"""
    cache_dir: Place | None = None
    """where they are kept; default $ERASE_CACHE or ~/.cache/erase"""
