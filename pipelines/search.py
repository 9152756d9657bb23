"""How a study tunes: the same number of tries for everything that it compares, one setting after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Settings = dict[str, Any]
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
