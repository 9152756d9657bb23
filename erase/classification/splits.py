"""Which samples are learned, forgotten, kept, chosen with and tested on; seeded, hashed and stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.classification.augmentation import Augment
from erase.classification.data import Data, Source
from erase.classification.forget_sets import FORGET, Classes, Flipped, Forget, Listed, Random
from erase.classification.images import Images, Normalise
from erase.errors import UserError, refuse
from erase.randomness import generator

PARTS = ("train", "forget", "retain", "validation", "test", "test_forgotten")

__all__ = ["FORGET", "PARTS", "Classes", "Data", "Flipped", "Forget", "Listed", "Random", "Splits", "make_splits"]


@dataclass(frozen=True)
class Splits:
    """A data set in its parts."""

    train: Images
    """All that the original learns from; with its wrong labels where labels are flipped."""
    forget: Images
    """The part of ``train`` to forget."""
    retain: Images
    """The rest of ``train``."""
    validation: Images
    """Chooses among settings. Like ``test``, without classes that are forgotten."""
    test: Images
    """Chooses nothing."""
    test_forgotten: Images
    """The test pictures of the forgotten classes; empty where no class is forgotten."""
    classes: tuple[str, ...]
    normalise: Normalise
    """By mean and standard deviation of ``train``."""
    seed: int
    augment: Augment = "none"
    """How pictures are changed at random when they are trained on."""

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each part; ``forget`` is the one that masks, references and results are checked by."""
        return {name: self._part(name).hash() for name in PARTS}

    def record(self) -> dict[str, Any]:
        """Which sample is where, as JSON, for ``splits.json``."""
        return {
            "seed": self.seed,
            "classes": list(self.classes),
            "normalise": {"mean": list(self.normalise.mean), "std": list(self.normalise.std)},
            "sizes": {name: len(self._part(name)) for name in PARTS},
            "sha256": self.hashes(),
            "ids": {name: list(self._part(name).ids) for name in PARTS if name != "train"},
        }

    def _part(self, name: str) -> Images:
        part: Images = getattr(self, name)
        return part


def make_splits(
    data: Data, forget: Forget, seed: int, test_share: float = 0.2, validation_share: float = 0.1
) -> Splits:
    """Loads and splits.

    A source's own test pictures are the test part; of one without, ``test_share`` of each class is. Then
    ``validation_share`` of what is left of each class is held back, and the rest is trained on. Both shares are in
    (0, 1) and depend on the seed alone; what is forgotten depends on the seed too, and moves no sample between the
    parts. The training part is in random order: some attacks look at its first samples only.
    """
    shares = {"test_share": test_share, "validation_share": validation_share}
    refuse(f"{key}: found {share}; must lie between 0 and 1" for key, share in shares.items() if not 0 < share < 1)
    source = data.load(seed)
    rest, test = (source.images, source.test) if source.test else _hold_back(source, "test", test_share, seed)
    left = Source(rest, None, source.classes)
    train, validation = _hold_back(left, "validation", validation_share, seed)
    train = train.take(torch.randperm(len(train), generator=generator(seed, "split", "order")))
    choice = forget.choose(train, source.classes, seed)
    refuse(_unfit(len(choice.places), len(train), forget.name))
    train = train.with_labels(choice.labels)
    gone = torch.zeros(len(train), dtype=torch.bool)
    gone[choice.places] = True
    kept_test, test_forgotten = _without(test, choice.classes)
    if not len(kept_test):
        raise UserError(
            f"data: all {len(test)} test pictures are of what forget.name {forget.name} chooses, so that nothing could "
            "be judged of what is kept; give more pictures of the other classes"
        )
    return Splits(
        train=train,
        forget=train.take(choice.places),
        retain=train.take(_where(~gone)),
        validation=_without(validation, choice.classes)[0],
        test=kept_test,
        test_forgotten=test_forgotten,
        classes=source.classes,
        normalise=Normalise.of(train.pixels),
        seed=seed,
        augment=source.augment,
    )


def _hold_back(source: Source, part: str, share: float, seed: int) -> tuple[Images, Images]:
    """What is left, and the share of each class that is held back; both in the source's order."""
    images, rng = source.images, generator(seed, "split", part)
    held = torch.zeros(len(images), dtype=torch.bool)
    for label in range(len(source.classes)):
        places = _where(images.labels == label)
        order = torch.randperm(len(places), generator=rng)
        held[places[order[: round(share * len(places))]]] = True
    if not held.any() or held.all():
        raise UserError(
            f"data: {share:g} of each class is held back for {part}, which of {len(images)} pictures is "
            f"{int(held.sum())}; give more pictures of each class"
        )
    return images.take(_where(~held)), images.take(_where(held))


def _unfit(forgotten: int, total: int, name: str) -> Iterator[str]:
    if not forgotten:
        yield f"forget.name: {name} chooses none of the {total} training samples; give something to forget"
    if forgotten == total:
        yield f"forget.name: {name} chooses all {total} training samples; something must be left to keep"


def _without(images: Images, classes: frozenset[int] | Sequence[int]) -> tuple[Images, Images]:
    """The pictures of other classes, and those of these."""
    gone = torch.isin(images.labels, torch.tensor(sorted(classes), dtype=torch.int64))
    return images.take(_where(~gone)), images.take(_where(gone))


def _where(wanted: Tensor) -> Tensor:
    return torch.nonzero(wanted).flatten()
