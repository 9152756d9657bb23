"""The folder that a training run left: what it holds, and the base it was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.diffusion.foreign import INDEX
from erase.diffusion.pipelines import find_pipeline
from erase.errors import UserError
from erase.generation.lora import NAME as ADAPTER
from erase.provenance import hash_folder
from erase.training.output import PROVENANCE


@dataclass(frozen=True)
class RunFolder:
    """A finished run: a whole pipeline, or a LoRA adapter for its base."""

    folder: Path
    base: dict[str, Any]
    """``model``, ``revision``, ``hash`` and, of a run that says it, ``is_folder``, as the provenance has them."""

    @property
    def adapter(self) -> Path | None:
        """The file of a LoRA run; ``None`` of a run that left a whole pipeline."""
        file = self.folder / ADAPTER
        return file if file.is_file() else None

    def find_base(self) -> Path:
        """The base's folder; one that is not, bit for bit, what the run was made from is refused."""
        folder = find_pipeline(self.base["model"], self.base["revision"])
        if hash_folder(folder) != self.base["hash"]:
            raise UserError(
                f"run: {self.folder} was made from {self.base['model']}, whose files have changed since; "
                "put them back as they were"
            )
        return folder


def open_run(folder: Path) -> RunFolder:
    """A run that is finished and holds one model, told by its provenance."""
    file = folder / PROVENANCE
    if not folder.is_dir():
        raise UserError(f"run: {folder} is no folder; give the output_dir of a finished erase train")
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
        _refuse_classifier(folder, made)
        base = {key: made["base"][key] for key in ("model", "revision", "hash")}
        run = RunFolder(folder, base | {"is_folder": bool(made["base"].get("is_folder"))})
    except FileNotFoundError:
        raise UserError(f"run: {folder} has no {PROVENANCE}: it is no run, or one that has not finished") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        remedy = "give the output_dir of a finished erase train of a diffusion model"
        raise UserError(f"run: {file} is damaged or of another kind of run: {error!r}; {remedy}") from None
    whole = (folder / INDEX).is_file()
    if whole == (run.adapter is not None):
        found = "both a pipeline and an adapter" if whole else "neither a pipeline nor an adapter"
        raise UserError(f"run: {folder} holds {found}; {INDEX} or {ADAPTER} belongs there, not both")
    return run


def _refuse_classifier(folder: Path, made: object) -> None:
    config = made.get("config") if isinstance(made, dict) else None
    if isinstance(config, dict) and config.get("task") == "classification":
        raise UserError(
            f"run: {folder} holds a classifier (task classification); publish takes diffusion models alone; "
            "upload a classifier's folder as it is, with `hf upload OWNER/NAME FOLDER`"
        )
