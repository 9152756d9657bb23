"""What is to be forgotten; the table is closed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Images
from erase.components import STRICT, Place
from erase.errors import UserError, refuse
from erase.randomness import generator

SHOWN = 10
"""How many unknown names are looked up for what they may have meant."""

Word = Annotated[str, Field(coerce_numbers_to_str=True, min_length=1)]
"""A name; YAML reads the class ``3`` as a number."""
Share = Annotated[float, Field(gt=0, lt=1)]


@plain_dataclass(frozen=True)
class Choice:
    """The training samples to forget, and what choosing them does to the data."""

    places: Tensor
    """``[m]`` int64, in rising order."""
    labels: Tensor
    """``[n]`` the labels that the original learns; other than the given ones where they are flipped."""
    classes: frozenset[int] = frozenset()
    """Classes that are forgotten altogether."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Classes:
    """Every training sample of some classes."""

    name: Literal["classes"] = "classes"
    labels: Annotated[tuple[Word, ...], Field(min_length=1)]
    """names of the classes"""

    def choose(self, train: Images, classes: Sequence[str], seed: int) -> Choice:
        """All of them; a class that is unknown, or named twice, is refused."""
        problems = []
        for place, label in enumerate(self.labels):
            first = self.labels.index(label)
            if label not in classes:
                problems.append(f"forget.labels.{place}: found {label!r}; {near(label, classes)}")
            elif first != place:
                there = f"{label!r} is there twice, first at forget.labels.{first}"
                problems.append(f"forget.labels.{place}: {there}; leave one out")
        refuse(problems)
        numbers = frozenset(classes.index(label) for label in self.labels)
        wanted = torch.isin(train.labels, torch.tensor(sorted(numbers)))
        return Choice(_places(wanted), train.labels, numbers)


@dataclass(frozen=True, config=STRICT)
class Random:
    """A share of the training samples, uniformly drawn."""

    name: Literal["random"] = "random"
    fraction: Share = 0.1
    """of the training samples, in (0, 1)"""

    def choose(self, train: Images, classes: Sequence[str], seed: int) -> Choice:
        """round(fraction n) of n samples, without replacement."""
        return Choice(_draw(len(train), self.fraction, seed), train.labels)


@dataclass(frozen=True, config=STRICT)
class Flipped:
    """Samples whose label was wrong: the original memorises them, and forgets them with their wrong labels."""

    name: Literal["flipped"] = "flipped"
    fraction: Share = 0.1
    """of the training samples that get a wrong label, in (0, 1)"""

    def choose(self, train: Images, classes: Sequence[str], seed: int) -> Choice:
        """round(fraction n) of n samples; the wrong label is uniform among the other classes."""
        places, labels = _draw(len(train), self.fraction, seed), train.labels.clone()
        shift = torch.randint(1, len(classes), places.shape, generator=generator(seed, "wrong labels"))
        labels[places] = (labels[places] + shift) % len(classes)
        return Choice(places, labels)


@dataclass(frozen=True, config=STRICT)
class Listed:
    """The training samples of these names."""

    name: Literal["listed"] = "listed"
    ids: tuple[Word, ...] = ()
    """names of samples, as `splits.json` holds them"""
    file: Place | None = None
    """a text file with a name in each line, in place of `ids` or besides"""

    def choose(self, train: Images, classes: Sequence[str], seed: int) -> Choice:
        """Those named; one that is unknown, or named twice, is refused."""
        wanted = [(f"forget.ids.{place}", name) for place, name in enumerate(self.ids)] + self._lines()
        number = {name: place for place, name in enumerate(train.ids)}
        seen: dict[str, str] = {}
        problems: list[str] = []
        for key, name in wanted:
            if name not in number:
                like = f"; {near(name, train.ids)}" if len(problems) < SHOWN else ""  # a long search for each
                problems.append(
                    f"{key}: {name!r} is no training sample with this split_seed: unknown, or held back to test or "
                    f"validate{like}"
                )
            elif seen.setdefault(name, key) != key:
                problems.append(f"{key}: {name!r} is there twice, first at {seen[name]}; leave one out")
        refuse(problems)
        return Choice(torch.tensor(sorted(number[name] for name in seen), dtype=torch.int64), train.labels)

    def _lines(self) -> list[tuple[str, str]]:
        if self.file is None:
            return []
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"forget.file: {self.file} cannot be read: {error}") from None
        return [(f"{self.file}:{row}", line.strip()) for row, line in enumerate(lines, start=1) if line.strip()]


Forget = Classes | Random | Listed | Flipped
FORGET: dict[str, type[Forget]] = {"classes": Classes, "random": Random, "listed": Listed, "flipped": Flipped}


def near(word: str, known: Sequence[str]) -> str:
    """The names most like one that is unknown, or the first few."""
    close = difflib.get_close_matches(word, known, 3) if len(known) < 10_000 else []
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known: {', '.join(known[:10])}{f', ... ({len(known)})' if len(known) > 10 else ''}"


def _draw(size: int, fraction: float, seed: int) -> Tensor:
    count = round(fraction * size)
    return torch.randperm(size, generator=generator(seed, "forget"))[:count].sort().values


def _places(wanted: Tensor) -> Tensor:
    return torch.nonzero(wanted).flatten()
