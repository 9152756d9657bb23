"""The settings of `erase generate`, and what can be refused before a model is loaded or a file written."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase import embedded
from erase.components import STRICT, Place
from erase.diffusion.foreign import check_foreign
from erase.diffusion.pipelines import find_pipeline
from erase.errors import UserError, collect, refuse
from erase.generation.lora import find_lora
from erase.generation.prompt_csv import read_prompt_set
from erase.generation.prompts import MULTIPLE, PromptRow, idle_seed, vocabulary_set
from erase.generation.records import HEADER, is_empty
from erase.generation.weights import is_weights
from erase.provenance import check_writable


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Generation:
    """Makes images of every prompt of a set, each from a seed of its own; the same command again goes on."""

    model: str = embedded.NAME
    """`shapes` (embedded), a diffusers folder such as an erased model's, or a Hub id"""
    revision: str | None = None
    """branch, tag or commit, where the model is a Hub id"""
    lora: Place | None = None
    """weights to put into the model: LoRA (diffusers' keys or kohya's), changed tensors as ESD and UCE ship them, or a
    UNet's state dict; a *.safetensors file, or a folder with one, such as a LoRA run's output"""
    prompts: Annotated[str, Field(min_length=1)]
    """a CSV with a `prompt` column, read as the field writes them (case_number, evaluation_seed, evaluation_guidance,
    sd_image_width, ...), or `shapes`: every full caption of Shapes World"""
    images_per_prompt: Annotated[int, Field(ge=1)] = 1
    """images of each row; the first from the row's own seed, the others from seeds derived from it"""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """denoising steps of the model's own scheduler, where a row says none; Shapes World does with 15"""
    guidance_scale: Annotated[float, Field(ge=0)] = 7.5
    """classifier-free guidance, where a row says none; up to 1: none. Shapes World was made for 4"""
    width: Annotated[int, Field(gt=0, multiple_of=MULTIPLE)] | None = None
    """pixels, where a row says none; default: the model's own size"""
    height: Annotated[int, Field(gt=0, multiple_of=MULTIPLE)] | None = None
    """pixels, where a row says none; default: the model's own size"""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """images sampled at a time by each process; another size rounds otherwise, by a level of 255 at float32"""
    seed: Annotated[int, Field(ge=0)] = 0
    """gives a set without seeds its own; refused beside a column of seeds, which has the last word"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """what the model computes in; noise is the same for all, but for rounding"""
    output_dir: Place
    """folder of the images; one with images of other settings is refused"""
    overwrite: bool = False
    """empty the output folder first, if it holds images of an earlier run"""


def read_prompts_of(generation: Generation) -> list[PromptRow]:
    """The rows that the settings name."""
    if generation.prompts == embedded.NAME:
        return vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, generation.seed)
    file = Path(generation.prompts).expanduser()
    try:
        found = file.stat()
    except OSError:
        return read_prompt_set(file, "prompts", generation.seed)  # which says what is wrong with it
    return list(_read_unchanged(file, generation.seed, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=1)
def _read_unchanged(file: Path, seed: int, *_: int) -> tuple[PromptRow, ...]:
    """An audit asks for its set four times: a file whose time and size are the same is read once."""
    return tuple(read_prompt_set(file, "prompts", seed))


def check_generation(generation: Generation) -> tuple[list[PromptRow], Path]:
    """The rows and the pipeline's folder; all that is wrong is reported at once. Writes nothing."""
    problems: list[str] = []
    rows = collect(problems, lambda: read_prompts_of(generation))
    model = collect(problems, lambda: _find_model(generation))
    collect(problems, lambda: find_lora(generation.lora) if generation.lora else None)
    collect(problems, lambda: check_output(generation.output_dir))
    collect(problems, lambda: _check_inputs_survive(generation))
    problems += idle_seed(generation.seed, rows or ())
    refuse(problems)
    if rows is None or model is None:
        raise UserError("the run has no plan")
    return rows, model


def _find_model(generation: Generation) -> Path:
    name, revision = generation.model, generation.revision
    if revision is not None and (name == embedded.NAME or os.path.isdir(name)):
        raise UserError(f"revision: {name} is a model on this machine and has none; found {revision}; leave it out")
    if name != embedded.NAME and is_weights(Path(name).expanduser()):
        raise UserError(f"model: {name} holds weights and no whole model; give it as `lora`, and what it changes here")
    folder = find_pipeline(name, revision)
    check_foreign(folder)
    return folder


def check_output(folder: Path) -> None:
    """Refuses a folder that cannot be written, and one that holds something else than images of an earlier run."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir: {folder} is a file; give a folder")
    check_writable(folder, "output_dir")
    if not is_empty(folder) and not (folder / HEADER).exists():
        raise UserError(
            f"output_dir: {folder} is not empty and has no {HEADER}: it is no folder of images; give another"
        )


def _check_inputs_survive(generation: Generation) -> None:
    """Refuses to overwrite a folder that holds what the run reads."""
    inputs = {"model": generation.model, "prompts": generation.prompts, "lora": generation.lora}
    there = generation.output_dir.resolve()
    places = {key: Path(given).expanduser() for key, given in inputs.items() if given}
    refuse(
        f"{key}: {inputs[key]} lies in {generation.output_dir}, which overwrite would empty; give another output_dir"
        for key, place in places.items()
        if generation.overwrite and place.exists() and place.resolve().is_relative_to(there)
    )
