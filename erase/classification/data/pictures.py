"""Image files as pixels of one size."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from erase.errors import UserError
from erase.pictures import DAMAGED, as_rgb

SHOWN = 10


def read_pictures(
    files: Iterable[tuple[str, Path | IO[bytes]]], size: int | None, key: str, skip: bool | None = None
) -> tuple[Tensor, list[int]]:
    """``[n, 3, h, w]`` uint8, and the places of those that could be read.

    ``size``: scaled and cropped at the center to size x size, proportions kept; ``None``: all must have one size.
    Damaged files, and those of more than 8 bits a channel, are refused by name, or named and left out if ``skip``;
    ``key`` is the setting that names the files, and ``None`` for ``skip`` says that the source has no such setting.
    """
    pictures: list[np.ndarray] = []
    kept, names, damaged = [], [], []
    for place, (name, file) in enumerate(files):
        try:
            picture = _read(file, size)
        except DAMAGED as error:
            damaged.append(f"{key}: {name} cannot be read as a picture: {error}")
            continue
        pictures.append(picture)
        kept.append(place)
        names.append(name)
        if picture.shape != pictures[0].shape:
            (h0, w0), (h1, w1) = pictures[0].shape[:2], picture.shape[:2]
            raise UserError(f"{key}: {names[0]} is {w0} x {h0} pixels and {name} {w1} x {h1}; give a `size`")
    more = [f"{key}: and {len(damaged) - SHOWN} more"] if len(damaged) > SHOWN else []
    if damaged and skip:
        print(f"{key}: {len(damaged)} of {len(damaged) + len(kept)} files are left out", file=sys.stderr)
        print(*damaged[:SHOWN], *more, sep="\n", file=sys.stderr)
    if damaged and not skip:
        remedy = [] if skip is None else ["data.skip_damaged: true leaves damaged pictures out"]
        raise UserError(*damaged[:SHOWN], *more, *remedy)
    if not pictures:
        raise UserError(f"{key}: holds no picture that can be read")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), kept


def _read(file: Path | IO[bytes], size: int | None) -> np.ndarray:
    with Image.open(file) as image:
        picture = as_rgb(image)
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
