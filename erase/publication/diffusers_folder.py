"""The erased pipeline as a diffusers folder: a full run's own files, a LoRA run's base with the adapter folded in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from erase.diffusion.foreign import INDEX, check_foreign, parts_of, read_index
from erase.diffusion.pipelines import load_pipeline
from erase.errors import UserError
from erase.generation.lora import fold_lora
from erase.provenance import MODEL_FILES, write_json
from erase.publication.run_folder import RunFolder

ORIGINS = ("_name_or_path", "name_or_path")
"""Where diffusers and transformers note what a part was loaded from: a folder of this machine."""


def write_diffusers(run: RunFolder, folder: Path) -> None:
    """Writes every part that the pipeline's index names, without a word of where it was loaded from."""
    if run.adapter is None:
        copy_pipeline(run.folder, folder)
    else:
        pipeline = load_pipeline(run.find_base())
        fold_lora(pipeline, run.adapter)
        pipeline.save_pretrained(folder, safe_serialization=True)
    for file in folder.rglob("*.json"):
        forget_origin(file)


def copy_pipeline(source: Path, folder: Path) -> None:
    """Copies the index and the parts it names: weights, settings and words; nothing that lies beside them."""
    check_foreign(source)
    shutil.copyfile(source / INDEX, folder / INDEX)
    for part in parts_of(read_index(source)):
        files = [file for file in (source / part).iterdir() if file.suffix in MODEL_FILES]
        if not files:
            raise UserError(f"run: {source / part} is missing or empty, which {INDEX} names")
        (folder / part).mkdir()
        for file in files:
            shutil.copyfile(file, folder / part / file.name)


def forget_origin(file: Path) -> None:
    """Takes the name of the folder that a part came from out of its settings."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(settings, dict) and any(key in settings for key in ORIGINS):
        write_json(file, {key: value for key, value in settings.items() if key not in ORIGINS})
