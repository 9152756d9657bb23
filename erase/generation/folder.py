"""A finished folder of images: every image with its prompt, its seed and its hash, read as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from erase.errors import UserError
from erase.generation.header import read_header
from erase.generation.plan import Ask
from erase.generation.prompt_csv import read_prompt_set
from erase.generation.prompts import PromptRow, hash_rows
from erase.generation.records import HEADER, MANIFEST, PROMPTS, Written, part_files, read_written, verified

SHOWN = 5
REMEDY = "run the same `erase generate` command again"


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a folder, and what it was made for."""

    case_number: str
    k: int
    prompt: str
    seed: int
    """Of its generator."""
    group: str
    concepts: Mapping[str, str]
    file: Path
    sha256: str


@dataclass(frozen=True)
class Made:
    """What a run added to a folder."""

    images: int
    seconds: float
    """From the start of sampling to the last file, all processes."""


@dataclass(frozen=True)
class ImageFolder:
    """Every image of a set, complete."""

    folder: Path
    header: dict[str, Any]
    """What ``generation.json`` holds."""
    pictures: Sequence[Picture]
    """Row by row, k = 0 first."""
    made: Made = Made(0, 0.0)
    """What the run that returned this folder made of it; nothing if it was only opened."""

    def batches(self, size: int) -> Iterator[tuple[list[Picture], list[Image.Image]]]:
        """The pictures in order, ``size`` at a time, with their pixels, RGB; one batch is in memory at a time."""
        for start in range(0, len(self.pictures), size):
            chunk = list(self.pictures[start : start + size])
            yield chunk, [_load(picture.file) for picture in chunk]


def _load(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UserError(f"{file} cannot be read: {error}; {REMEDY}") from None


def manifest_text(asks: Sequence[Ask], written: Mapping[str, Written], header: Mapping[str, Any]) -> str:
    """The manifest: a line of JSON for each image, with all that made it."""
    sampling = header["sampling"]
    shared = {"scheduler": sampling["scheduler"], "model_hash": header["model"]["hash"]}
    shared["lora_hash"] = (header["lora"] or {}).get("hash")
    lines = []
    for ask in asks:
        note, look = written[ask.file], ask.look
        line = {"case_number": ask.row.case_number, "k": ask.k, "prompt": ask.row.prompt, "seed": ask.seed}
        line |= {"steps": look.steps, "guidance_scale": look.guidance_scale, "width": look.width, "height": look.height}
        line |= shared | {"file": note.file, "bytes": note.bytes, "sha256": note.sha256}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def open_folder(folder: Path) -> ImageFolder:
    """A finished folder; one that lacks an image, or holds a damaged one, is refused, and the images are named."""
    header = read_header(folder / HEADER)
    rows = read_prompt_set(folder / PROMPTS, f"{folder}")
    if hash_rows(rows) != header["prompts"]["hash"]:
        raise UserError(f"{folder / PROMPTS} is not the set that {HEADER} names: it was changed; {REMEDY}")
    return list_folder(folder, header, rows, verify=True)


def list_folder(folder: Path, header: dict[str, Any], rows: Sequence[PromptRow], verify: bool) -> ImageFolder:
    """The pictures of rows that are known; without ``verify`` for whoever has just written or verified them."""
    copies = header["images_per_prompt"]
    if not (folder / MANIFEST).is_file():
        there = len({note.file for file in part_files(folder) for note in read_written(file)})
        raise UserError(f"{folder} is not complete: {there} of {len(rows) * copies} images are there; {REMEDY}")
    notes, pictures = _read_manifest(folder, [(row, k) for row in rows for k in range(copies)])
    if verify:
        _refuse_damaged(folder, notes)
    return ImageFolder(folder, header, pictures)


def _read_manifest(folder: Path, shots: Sequence[tuple[PromptRow, int]]) -> tuple[list[Written], list[Picture]]:
    """The manifest's lines, one for each image of the set, in its order."""
    file, notes, pictures = folder / MANIFEST, [], []
    try:
        with file.open(encoding="utf-8") as stream:
            for text, (row, k) in zip(stream, shots, strict=True):
                line = json.loads(text)
                notes.append(Written(line["file"], line["bytes"], line["sha256"]))
                if (line["case_number"], line["k"], line["seed"]) != (row.case_number, k, row.image_seed(k)):
                    raise ValueError(f"line {len(notes)} is not image {k} of row {row.case_number} of {PROMPTS}")
                pictures.append(_picture(folder, notes[-1], row, k))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file} is damaged: {error}; {REMEDY}") from None
    return notes, pictures


def _refuse_damaged(folder: Path, notes: Sequence[Written]) -> None:
    good = verified(folder, notes)
    bad = [note.file for note in notes if note.file not in good]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        shown = ", ".join(bad[:SHOWN]) + more
        raise UserError(f"{folder}: {len(bad)} of {len(notes)} images are missing or damaged: {shown}; {REMEDY}")


def _picture(folder: Path, note: Written, row: PromptRow, k: int) -> Picture:
    file, seed = folder / note.file, row.image_seed(k)
    return Picture(row.case_number, k, row.prompt, seed, row.group, row.concepts, file, note.sha256)
