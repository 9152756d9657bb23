"""`generation.json`: what shapes the images of a folder. Two runs share a folder only if theirs agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erase.config import differences
from erase.errors import UserError
from erase.generation.lora import find_lora
from erase.generation.plan import Look
from erase.generation.prompts import PromptRow, hash_rows
from erase.generation.records import hash_file
from erase.generation.settings import Generation
from erase.provenance import describe_environment, hash_folder, hash_json, read_json

FORMAT = 2
NAMES = ("model.name", "model.revision", "lora.name", "prompts.source", "made_with")
"""What may differ between a folder and the run that goes on with it: names, beside which the hashes stand, and what
changes no image but for its rounding: the batches, processes and machines of every run that made some of them."""
SHAPING = ("torch", "diffusers", "transformers")
"""Libraries whose versions may change an image."""


def default_look(generation: Generation, model: Path) -> Look:
    """How rows are sampled that say nothing; the size is the model's own, as diffusers works it out."""
    sample = read_json(model / "unet" / "config.json", "model").get("sample_size")
    factor = 2 ** (len(read_json(model / "vae" / "config.json", "model").get("block_out_channels", [])) - 1)
    high, wide = sample if isinstance(sample, list) else (sample, sample)
    if None in (high, wide) and None in (generation.width, generation.height):
        raise UserError(f"width, height: {model} does not say its own size; give both")
    return Look(
        steps=generation.num_inference_steps,
        guidance_scale=generation.guidance_scale,
        width=generation.width or int(wide * factor),
        height=generation.height or int(high * factor),
    )


def read_scheduler(model: Path) -> tuple[str, dict[str, Any]]:
    """The class of a pipeline's scheduler, and its settings as they are in its file."""
    index = read_json(model / "model_index.json", "model")
    settings = read_json(model / "scheduler" / "scheduler_config.json", "model")
    return str(index.get("scheduler", ["", "unknown"])[1]), {k: v for k, v in settings.items() if k[0] != "_"}


def make_header(
    generation: Generation, rows: list[PromptRow], model: Path, device: str, processes: int
) -> dict[str, Any]:
    """Everything that an image of the folder depends on, and how it was made."""
    look = default_look(generation, model)
    scheduler, settings = read_scheduler(model)
    environment = describe_environment()
    lora = find_lora(generation.lora) if generation.lora else None
    return {
        "format": FORMAT,
        "model": {"name": generation.model, "revision": generation.revision, "hash": hash_folder(model)},
        "lora": {"name": str(generation.lora), "hash": hash_file(lora)} if lora else None,
        "prompts": {"source": generation.prompts, "hash": hash_rows(rows), "rows": len(rows)},
        "images_per_prompt": generation.images_per_prompt,
        "sampling": {
            "num_inference_steps": look.steps,
            "guidance_scale": look.guidance_scale,
            "width": look.width,
            "height": look.height,
            "scheduler": scheduler,
            "scheduler_hash": hash_json(settings),
            "dtype": generation.dtype,
            "device": device,
            "safety_checker": "left out",
        },
        "libraries": {name: environment["libraries"][name] for name in SHAPING},
        "made_with": [
            {
                "batch_size": generation.batch_size,
                "seed": generation.seed,
                "processes": processes,
                "environment": environment,
            }
        ],
    }


def add_run(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any] | None:
    """A folder's header with this run among those that made its images; ``None`` if one like it is there already."""
    new = [run for run in now["made_with"] if run not in then["made_with"]]
    return {**then, "made_with": [*then["made_with"], *new]} if new else None


def read_header(file: Path) -> dict[str, Any]:
    """The header of a folder."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file.parent} is no folder of images: it has no {file.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}; make the images again in another folder") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{file} is of another format than {FORMAT}, the one known here; make the images again")
    return content


def check_same(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with images that were made otherwise, naming each difference."""
    changed = [line for line in differences(then, now) if not line.split(":")[0].startswith(NAMES)]
    if changed:
        remedy = "give another output_dir, or overwrite"
        raise UserError(f"output_dir: {folder} holds images of another run; {remedy}. What differs:", *changed)
