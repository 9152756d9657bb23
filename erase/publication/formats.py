"""A run's weights in the formats that others read; each draws the pictures that the run's own pipeline draws."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from erase.diffusion.foreign import INDEX
from erase.errors import UserError
from erase.provenance import check_writable
from erase.publication.diffusers_folder import write_diffusers
from erase.publication.lora_keys import write_kohya, write_lora
from erase.publication.run_folder import RunFolder, open_run
from erase.publication.unet_tensors import write_delta, write_unet

Write = Callable[[RunFolder, Path], None]
"""Writes a run into an empty folder."""
FORMATS: dict[str, Write] = {
    "diffusers": write_diffusers,
    "lora": write_lora,
    "kohya": write_kohya,
    "delta": write_delta,
    "unet": write_unet,
}
"""Whole pipeline; LoRA in diffusers' keys, in kohya's; the UNet's changed tensors; the UNet's state dict."""
ADAPTERS = ("lora", "kohya")
"""The formats that only a LoRA run has."""


def available(run: Path) -> list[str]:
    """The formats that a run can be written in; reads no weights."""
    adapter = open_run(run).adapter
    return [name for name in FORMATS if adapter is not None or name not in ADAPTERS]


def write_format(run: Path, name: str, folder: Path) -> list[Path]:
    """Writes a run in a format into a folder; the files that it wrote, in order of their names.

    Files of the same names are replaced, others stay. A format that the run cannot have exactly is refused with the
    reason, and then nothing is written.
    """
    if name not in FORMATS:
        raise UserError(f"format: {name!r} is unknown; choose from {', '.join(FORMATS)}")
    opened = open_run(run)
    check_writable(folder, "folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as place:
            FORMATS[name](opened, Path(place))
            return sorted(_move(Path(place), folder))
    except (OSError, SafetensorError) as error:
        raise UserError(f"folder: {name} could not be written to {folder}: {error}") from None


def _move(staged: Path, folder: Path) -> list[Path]:
    """Puts what was staged into the folder, whole parts at a time; the files' new places."""
    moved = []
    for item in sorted(staged.iterdir(), key=lambda path: path.name == INDEX):
        target = folder / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
        moved += [file for file in target.rglob("*") if file.is_file()] if target.is_dir() else [target]
    return moved
