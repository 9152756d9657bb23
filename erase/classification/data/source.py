"""What every source of pictures gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from erase.classification.augmentation import Augment
from erase.classification.images import Images
from erase.errors import UserError


@dataclass(frozen=True)
class Source:
    """Pictures, those that the source itself keeps for testing, and the names of the classes."""

    images: Images
    test: Images | None
    """``None``: the source has none; :func:`erase.classification.splits.make_splits` holds a share back."""
    classes: tuple[str, ...]
    """Class k is called ``classes[k]``."""
    augment: Augment = "none"
    """How pictures are changed at random when they are trained on."""

    def __post_init__(self) -> None:
        parts = [self.images, *([] if self.test is None else [self.test])]
        if len(self.classes) < 2:
            raise UserError(f"data: a classifier needs two classes or more; found {', '.join(self.classes) or 'none'}")
        if len({part.pixels.shape[1:] for part in parts}) > 1:
            sizes = " and ".join(str(list(part.pixels.shape[1:])) for part in parts)
            raise UserError(f"data: pictures to learn from and to test on differ in [channels, height, width]: {sizes}")
        for part in parts:
            for place in torch.nonzero((part.labels < 0) | (part.labels >= len(self.classes))).flatten().tolist()[:1]:
                raise UserError(
                    f"data: {part.ids[place]} has the label {part.labels[place]}, which is none of the "
                    f"{len(self.classes)} classes (0 to {len(self.classes) - 1})"
                )
        if self.test is not None and (shared := set(self.images.ids) & set(self.test.ids)):
            raise UserError(f"data: {sorted(shared)[0]} is both among the pictures to learn from and those to test on")
