"""By which keys an audit tells a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from erase.errors import UserError


@contextmanager
def renamed(keys: Mapping[str, str]) -> Iterator[None]:
    """What the body refuses by a key of ``keys`` is told by the key that the user gave."""
    try:
        yield
    except UserError as error:
        told = (problem.partition(":") for problem in error.problems)
        raise UserError(*(f"{keys.get(key, key)}{colon}{rest}" for key, colon, rest in told)) from None
