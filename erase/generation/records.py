"""What was written: a line for each image, verified against its file by size and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HEADER, PROMPTS, MANIFEST = "generation.json", "prompts.csv", "manifest.jsonl"
IMAGES, PARTS, DONE = "images", "parts", "done"
LOCK = ".lock"
"""The files and folders in a folder of images. The lock's file is empty and stays: to remove it would let two in."""
LEFTOVER = re.compile(r"\..+\.tmp\d+")
"""A file that a killed process was writing."""
CHUNK = 256
"""Images that a thread verifies at a time."""


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes, a part at a time: weights are hashed, too."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Written:
    """An image that is in its place."""

    file: str
    """Relative to the folder: ``images/00000_0.png``."""
    bytes: int
    sha256: str

    def line(self) -> str:
        """For a file of parts."""
        return json.dumps({"file": self.file, "bytes": self.bytes, "sha256": self.sha256}) + "\n"

    def holds(self, folder: Path) -> bool:
        """Whether the file is there, whole and as it was written."""
        file = folder / self.file
        try:
            return file.stat().st_size == self.bytes and hash_file(file) == self.sha256
        except OSError:
            return False


def part_file(folder: Path, process: int | str) -> Path:
    """Where a process notes its images."""
    name = f"{process:05d}" if isinstance(process, int) else process
    return folder / PARTS / f"{name}.jsonl"


def read_written(file: Path) -> Iterator[Written]:
    """The notes of a file of parts or of a manifest, one at a time; a line that a crash cut short is left out."""
    try:
        stream = file.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with stream:
        for text in stream:
            try:
                line = json.loads(text)
                yield Written(line["file"], line["bytes"], line["sha256"])
            except (ValueError, LookupError, TypeError):
                continue


def part_files(folder: Path) -> list[Path]:
    """Every file of parts."""
    return sorted((folder / PARTS).glob("*.jsonl"))


def verified(folder: Path, notes: Iterable[Written]) -> dict[str, Written]:
    """The notes that are true of the files, by file; hashed in threads, which SHA-256 lets run side by side."""

    def check(chunk: Sequence[Written]) -> list[Written]:
        return [note for note in chunk if note.holds(folder)]

    distinct = list(dict.fromkeys(notes))
    chunks = [distinct[start : start + CHUNK] for start in range(0, len(distinct), CHUNK)]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return {note.file: note for found in pool.map(check, chunks) for note in found}


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder, or no folder; a lock or what a killed process was writing is nothing."""
    return not folder.exists() or all(name == LOCK or LEFTOVER.fullmatch(name) for name in os.listdir(folder))


def remove_leftovers(*folders: Path) -> None:
    """Removes files that a killed process was writing."""
    for folder in folders:
        for name in os.listdir(folder) if folder.is_dir() else []:
            if LEFTOVER.fullmatch(name):
                (folder / name).unlink()
