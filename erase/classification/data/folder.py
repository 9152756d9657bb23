"""A folder with a folder of pictures for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.classification.augmentation import Augment
from erase.classification.data.pictures import read_pictures
from erase.classification.data.source import Source
from erase.classification.images import Images
from erase.components import STRICT, Place
from erase.errors import UserError


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Folder:
    """``path/CLASS/NAME.png``, as torchvision's ImageFolder; pictures are read as RGB."""

    name: Literal["folder"] = "folder"
    path: Place
    """holds one folder for each class, which gives the class its name"""
    test: Place | None = None
    """a second such folder, with the same classes and other pictures, to test on; default: a share of `path`"""
    size: Annotated[int, Field(ge=8, le=1024)]
    """pixels a side that every picture is scaled to; what is not square is cropped at the center"""
    augment: Augment = "none"
    """what is done to each picture of a training batch: `shift`, by up to an eighth of a side; `shift_and_mirror`, as
    CIFAR is trained, mirrors half of them too. Masks, starts and tests see them as they are"""
    skip_damaged: bool = False
    """leave out files that cannot be read as pictures; default: they are named and the run is refused"""

    def load(self, seed: int) -> Source:
        """``[n, 3, size, size]``; a sample's id is its path below the folder."""
        if self.test is not None and self.test.resolve() == self.path.resolve():
            raise UserError(f"data.test: {self.test} is data.path; give other pictures, or leave it out for a share")
        images, classes = self._read(self.path, "path", "")
        if self.test is None:
            return Source(images, None, classes, self.augment)
        test, others = self._read(self.test, "test", "test:")
        if others != classes:
            odd = sorted(set(others) ^ set(classes))
            raise UserError(f"data.test: {self.test} must hold the classes of {self.path}; not in both: {odd[0]}")
        return Source(images, test, classes, self.augment)

    def _read(self, folder: Path, field: str, prefix: str) -> tuple[Images, tuple[str, ...]]:
        from torchvision.datasets import ImageFolder

        key = f"data.{field}"
        try:
            found = ImageFolder(str(folder))
        except OSError as error:
            raise UserError(f"{key}: {folder} is no folder of class folders with pictures: {error}") from None
        files = [Path(file) for file, _ in found.samples]
        names = [file.relative_to(folder).as_posix() for file in files]
        pixels, kept = read_pictures(zip(names, files, strict=True), self.size, key, self.skip_damaged)
        labels = torch.tensor(found.targets)[kept]
        return Images(pixels, labels, tuple(prefix + names[place] for place in kept)), tuple(found.classes)
