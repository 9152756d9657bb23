"""What is to be made: every image of every row, and batches of images that are sampled alike.

The batches depend on the set and the settings alone. A batch of which anything is missing is sampled whole again, so
that each image keeps the neighbours, and with them the rounding, that it has in a run of one process without a stop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from erase.generation.prompts import PromptRow


@dataclass(frozen=True, slots=True)
class Look:
    """How an image is sampled."""

    steps: int
    guidance_scale: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One image to make."""

    row: PromptRow
    k: int
    look: Look

    @property
    def seed(self) -> int:
        """Of the image's own generator."""
        return self.row.image_seed(self.k)

    @property
    def file(self) -> str:
        """Where it goes, relative to the folder."""
        return f"images/{self.row.case_number}_{self.k}.png"


def make_asks(rows: Sequence[PromptRow], images_per_prompt: int, default: Look) -> list[Ask]:
    """Every image, in the manifest's order: row by row, k = 0 first; what a row leaves open is the default's."""
    asks = []
    for row in rows:
        look = Look(
            steps=default.steps if row.steps is None else row.steps,
            guidance_scale=default.guidance_scale if row.guidance_scale is None else row.guidance_scale,
            width=row.width or default.width,
            height=row.height or default.height,
        )
        asks += [Ask(row, k, look) for k in range(images_per_prompt)]
    return asks


def make_batches(asks: Sequence[Ask], size: int) -> Iterator[tuple[Ask, ...]]:
    """Images that are sampled alike, ``size`` at a time, in the order of the asks."""
    alike: dict[Look, list[Ask]] = {}
    for ask in asks:
        alike.setdefault(ask.look, []).append(ask)
    for group in alike.values():
        yield from (tuple(group[start : start + size]) for start in range(0, len(group), size))


def pending(asks: Sequence[Ask], size: int, done: Collection[str]) -> list[tuple[Ask, ...]]:
    """The batches of which a file is not done."""
    return [batch for batch in make_batches(asks, size) if any(ask.file not in done for ask in batch)]
