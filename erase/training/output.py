"""The output folder: refused if it holds something else, cleared on request, filled at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors import SafetensorError

from erase.errors import UserError, refuse
from erase.provenance import check_writable, empty_folder, new_folder, write_json, write_text
from erase.training.step_log import FILE_NAME

CONFIG, PROVENANCE = "config.yaml", "provenance.json"


def check_output(
    folder: Path, overwrite: bool, resuming: bool, key: str = "output_dir", marker: str = FILE_NAME
) -> None:
    """Refuses a folder that a run must not write to; ``marker`` is what an earlier run would have left there."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"{key}: {folder} is a file; give a folder")
    check_writable(folder, key)
    if resuming or not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        remedy = "give another, or --overwrite, or --resume_from_checkpoint latest"
        raise UserError(f"{key}: {folder} is not empty; {remedy}")
    if not (folder / marker).exists():
        raise UserError(f"{key}: {folder} holds no {marker}, so it is no earlier run; it is not overwritten")


def check_inputs_survive(folder: Path, inputs: Mapping[str, object], made: Sequence[str] = ()) -> None:
    """Refuses an output folder that holds what the run reads, for overwriting would remove it.

    ``inputs`` by their keys; those of ``made`` need not be there yet, and others that are not may be Hub ids.
    """
    there = folder.resolve()
    places = {key: Path(str(given)).expanduser() for key, given in inputs.items() if given is not None}
    refuse(
        f"{key}: {inputs[key]} lies in output_dir {folder}, which --overwrite would remove; give another output_dir"
        for key, place in places.items()
        if (key in made or place.exists()) and place.resolve().is_relative_to(there)
    )


def open_output(folder: Path, overwrite: bool, config: dict[str, Any]) -> None:
    """Clears an earlier run if asked to, and writes the resolved settings."""
    if overwrite and folder.exists():
        empty_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).touch()  # by which a run that dies before its first step is known for one
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))


def write_result(folder: Path, save: Callable[[Path], None], provenance: dict[str, Any]) -> None:
    """Saves the model beside the run's log; a failure leaves the folder without a half-written model."""
    staging = folder / "result"
    try:
        with new_folder(staging) as temporary:
            save(temporary)
        for item in sorted(staging.iterdir(), key=lambda path: path.name == "model_index.json"):
            destination = folder / item.name
            if destination.is_dir():
                shutil.rmtree(destination)
            item.replace(destination)
        staging.rmdir()
        write_json(folder / PROVENANCE, provenance)
    except (OSError, SafetensorError) as error:
        raise UserError(f"output_dir: the model could not be written to {folder}: {error}") from None
