"""How a study tunes: the same number of tries for everything that it compares, and more than one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Settings = dict[str, Any]
Tried = TypeVar("Tried")
FINALISTS = 3
"""How many of a search's tries are made on the other seeds, too."""
Axis = tuple[str, Callable[[Any], Sequence[Any]]]
"""A key, and the values to try given the best one so far."""


def coordinate_search(start: Settings, axes: Sequence[Axis], loss: Callable[[Settings], float]) -> Settings:
    """Tries the values of one axis after the other, all else at its best so far; gives the settings of the least loss.

    ``start`` itself is tried only if an axis has its value. Of equals the first stays; a key may come twice, coarse
    and then fine.
    """
    best, least = start, float("inf")
    for key, values in axes:
        tried = [(value, loss(best | {key: value})) for value in values(best.get(key))]
        value, found = min(tried, key=lambda pair: pair[1])
        if found < least:
            best, least = best | {key: value}, found
    return best


def choose(
    search: Callable[[Callable[[Tried], float]], object],
    first: Callable[[Tried], float],
    others: Callable[[Tried], Iterable[float]],
) -> Tried:
    """What has the least mean loss over seeds: a search on the first, the best of which are tried on the others.

    Of one seed alone, chance would choose too much. Where every finalist fails on another seed, an infinite loss, the
    next best follow until one does not.
    """
    tried: list[tuple[float, Tried]] = []

    def seen(settings: Tried) -> float:
        tried.append((first(settings), settings))
        return tried[-1][0]

    search(seen)
    again: list[tuple[float, Tried]] = []
    for found, settings in sorted(tried, key=lambda pair: pair[0]):
        if len(again) >= FINALISTS and (min(again, key=lambda pair: pair[0])[0] < math.inf or found == math.inf):
            break
        again.append((found + sum(others(settings)), settings))
    return min(again, key=lambda pair: pair[0])[1]
