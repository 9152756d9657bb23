"""The step log: one JSON line a step, the same whether or not the run was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erase.errors import UserError
from erase.provenance import write_text

FILE_NAME = "steps.jsonl"


class StepLog:
    """Appends to ``steps.jsonl``; a resumed run first drops the lines after its checkpoint."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self.file = folder / FILE_NAME
        kept = [line for line in read_log(folder) if line["step"] <= first_step] if self.file.exists() else []
        write_text(self.file, "".join(json.dumps(line) + "\n" for line in kept))
        self.stream = self.file.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Adds a step."""
        try:
            self.stream.write(json.dumps(line) + "\n")
            self.stream.flush()
        except OSError as error:
            remedy = "free space, then --resume_from_checkpoint latest"
            raise UserError(f"output_dir: {self.file} cannot be written: {error.strerror}; {remedy}") from None

    def close(self) -> None:
        """Closes the file."""
        self.stream.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a line cut short by a crash is left out."""
    lines = []
    for text in (folder / FILE_NAME).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
