"""Whether two pipelines make pictures alike but for their weights: by the same scheduler, of the same size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers

from erase.errors import refuse
from erase.generation.header import default_look, read_scheduler
from erase.generation.prompts import PromptRow
from erase.generation.settings import Generation

SET_BY_THE_PIPELINE = ("steps_offset", "clip_sample")
"""Settings that Stable Diffusion's pipeline corrects when it is loaded, whatever the file says."""


def check_alike(base: Path, erased: Path, generation: Generation, rows: Iterable[PromptRow]) -> None:
    """Refuses an erased pipeline whose own sampling is not the base's: the difference would pass for the erasure's."""
    sized = all(row.width and row.height for row in rows)
    refuse([*_other_scheduler(base, erased), *([] if sized else _other_size(base, erased, generation))])


def _other_scheduler(base: Path, erased: Path) -> Iterator[str]:
    (wanted, then), (found, now) = (_settings(*read_scheduler(model)) for model in (base, erased))
    remedy = f"an audit compares weights alone; copy {base / 'scheduler'} into a copy of the erased pipeline"
    if found != wanted:
        yield f"erased: {erased} samples by {found}, the base by {wanted}; {remedy}, and name it in model_index.json"
        return
    for key in sorted(key for key in {*then, *now} if then.get(key) != now.get(key)):
        yield f"erased: {key} of its scheduler is {now.get(key)!r}, the base's {then.get(key)!r}; {remedy}"


def _settings(name: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A scheduler's class and settings, with the defaults that a file of another release leaves out."""
    filled = dict(given)
    with suppress(AttributeError, TypeError, ValueError, NotImplementedError):  # damaged: found when it is loaded
        filled = dict(getattr(diffusers, name).from_config(filled).config)
    return name, {key: filled[key] for key in filled if key[0] != "_" and key not in SET_BY_THE_PIPELINE}


def _other_size(base: Path, erased: Path, generation: Generation) -> Sequence[str]:
    looks = [default_look(generation, model) for model in (base, erased)]
    wanted, found = (f"{look.width} x {look.height}" for look in looks)
    remedy = "give the prompts columns `width` and `height`"
    return [] if found == wanted else [f"erased: {erased} draws {found} pixels, the base {wanted}; {remedy}"]
