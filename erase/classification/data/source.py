"""What every source of pictures gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from erase.classification.augmentation import Augment
from erase.classification.images import Images
from erase.errors import UserError, refuse

MAX_SHARED = 0.1
"""Share of the test pictures that may be training pictures, pixel by pixel: official splits share a few, too."""


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
        if self.test is not None:
            refuse(_shared(self.images, self.test))


def _shared(images: Images, test: Images) -> Iterator[str]:
    """What is wrong with test pictures that are trained on; by pixels, too, as one picture may have two names."""
    if shared := set(images.ids) & set(test.ids):
        yield f"data: {sorted(shared)[0]} is both among the pictures to learn from and those to test on"
        return
    known = set(_digests(images))
    places = [place for place, digest in enumerate(_digests(test)) if digest in known]
    if len(places) > MAX_SHARED * len(test):
        yield (
            f"data: {len(places)} of {len(test)} pictures to test on are, pixel by pixel, among those to learn from, "
            f"first {test.ids[places[0]]}; at most {MAX_SHARED:.0%} may be; give others to test on"
        )


def _digests(images: Images) -> Iterator[bytes]:
    return (hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest() for pixels in images.pixels.cpu())
