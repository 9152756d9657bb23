"""Drawings, what was asked for, and folders of both, for the metrics' tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from erase.embedded import VOCABULARY
from erase.shapes.drawing import draw

OBJECTS, COLORS, STYLES = VOCABULARY.domains["object"], VOCABULARY.domains["color"], VOCABULARY.domains["style"]


@dataclass(frozen=True)
class Drawn:
    """A picture as a folder lists it."""

    prompt: str
    concepts: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    seed: int = 0
    case_number: str = "00000"
    k: int = 0
    sha256: str = ""


def drawings(count: int, seed: int = 0) -> tuple[list[Image.Image], list[Drawn]]:
    """Pictures of every kind, each with the caption that fits it."""
    rng, images, asked = np.random.default_rng(seed), [], []
    for i in range(count):
        words = {"object": OBJECTS[i % 8], "color": COLORS[i % 6], "style": STYLES[i % 5]}
        image = Image.fromarray(draw(words["object"], words["color"], words["style"], rng))
        text = f"a {words['color']} {words['object']} in {words['style']} style"
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        images.append(image)
        asked.append(Drawn(text, words, "other", i, f"{i:05d}", 0, digest))
    return images, asked


@dataclass
class TinyFolder:
    """A folder of PNGs in the order of its pictures; ``read`` counts the images that were opened."""

    folder: Path
    pictures: Sequence[Drawn]
    read: int = 0

    def file_of(self, picture: Drawn) -> Path:
        return self.folder / f"{picture.case_number}_{picture.k}.png"

    def batches(self, size: int) -> Iterator[tuple[list[Drawn], list[Image.Image]]]:
        for start in range(0, len(self.pictures), size):
            chunk = list(self.pictures[start : start + size])
            self.read += len(chunk)
            yield chunk, [Image.open(self.file_of(p)).convert("RGB") for p in chunk]


def save_folder(folder: Path, count: int, seed: int = 0) -> TinyFolder:
    folder.mkdir(parents=True)
    images, asked = drawings(count, seed)
    for image, picture in zip(images, asked, strict=True):
        image.save(folder / f"{picture.case_number}_{picture.k}.png")
    return TinyFolder(folder, asked)
