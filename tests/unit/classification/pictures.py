"""Small picture files for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PETS = ("cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png", "dog/deep/c.png")


def noise(seed: int, width: int = 8, height: int = 8) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pets(folder: Path, first: int = 0) -> Path:
    """:data:`PETS` of 8 x 8 pixels, drawn as ``noise(first + place)``; and a file that is no picture by its name."""
    for place, name in enumerate(PETS, start=first):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(place).save(file)
    (folder / "cat" / "notes.txt").write_text("not a picture")
    return folder
