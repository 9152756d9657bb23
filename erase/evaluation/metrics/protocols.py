"""What a metric is: of one image, of a pair of images, or of two sets of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from erase.evaluation.intervals import Interval

Columns = dict[str, list[Any]]
"""Column name to one value for each image."""


class Asked(Protocol):
    """What an image was asked to show."""

    @property
    def prompt(self) -> str:
        """The whole prompt."""

    @property
    def seed(self) -> int:
        """Of its noise."""

    @property
    def group(self) -> str:
        """``target``, ``neighbour``, ..."""

    @property
    def concepts(self) -> Mapping[str, str]:
        """Domain to the concept asked for."""


class Shown(Asked, Protocol):
    """An image of a folder: what was asked for, and which file answers."""

    @property
    def case_number(self) -> str:
        """The prompt's name."""

    @property
    def k(self) -> int:
        """Which image of the prompt."""

    @property
    def sha256(self) -> str:
        """Of the file."""


class Folder(Protocol):
    """A finished folder of images, read in batches."""

    @property
    def pictures(self) -> Sequence[Shown]:
        """Every image, in order."""

    def batches(self, size: int) -> Iterator[tuple[Sequence[Shown], Sequence[Image.Image]]]:
        """The images in that order, ``size`` at a time."""


class Metric(Protocol):
    """A figure, or several, for each image."""

    @property
    def name(self) -> str:
        """Names its file and its key in the results."""

    def identity(self) -> dict[str, Any]:
        """All that shapes its values: library, version, weights' hash, thresholds, scale."""

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses, before an image is made, prompts that it cannot judge, and what it needs and does not find.

        ``pictures`` may be rows of a prompt set. A judge whose labels say what it knows is loaded.
        """

    def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Asked]) -> Columns:
        """Its columns, one value an image."""


class PairMetric(Protocol):
    """A distance between the image before and the image after, of one prompt and seed."""

    @property
    def name(self) -> str:
        """As of a :class:`Metric`."""

    def identity(self) -> dict[str, Any]:
        """As of a :class:`Metric`."""

    def check(self, pictures: Sequence[Asked]) -> None:
        """As of a :class:`Metric`."""

    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Columns:
        """Its columns, one value a pair."""


class SetMetric(Protocol):
    """A distance between two sets of images."""

    @property
    def name(self) -> str:
        """As of a :class:`Metric`."""

    @property
    def features(self) -> Any:
        """The extractor whose features it compares."""

    def identity(self) -> dict[str, Any]:
        """As of a :class:`Metric`."""

    def check(self, pictures: Sequence[Asked]) -> None:
        """As of a :class:`Metric`."""

    def fewest(self) -> int | None:
        """The images needed in each set, without looking at any; ``None`` where only the extractor would tell."""

    def distance(
        self, before: Any, after: Any, paired: bool = False, clusters: Sequence[Hashable] | None = None
    ) -> Interval:
        """Between ``[n, d]`` and ``[m, d]`` features.

        ``paired``: image i of both sets is of one prompt and seed. ``clusters``: the prompt of each image, where
        prompts have several; then too both sets are of the same prompts in the same order.
        """
