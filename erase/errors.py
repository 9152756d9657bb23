"""What a user's mistake raises: shown without a traceback, exit code 2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{8,}")
"""An access token of the Hub."""
HIDDEN = "[token]"
AGAIN = "run the same command again, without --overwrite"
"""How pictures that were being made go on; --overwrite would remove those that are there."""
Result = TypeVar("Result")


class UserError(Exception):
    """One or several mistakes, each a sentence that names the key or file, the value, the rule and the remedy.

    Access tokens in them are blotted out: errors end up in logs and in questions to others.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(TOKEN.sub(HIDDEN, problem) for problem in problems)
        super().__init__("\n".join(self.problems))


def refuse(problems: Iterable[str]) -> None:
    """Raises all of the problems at once, if there are any."""
    found = list(problems)
    if found:
        raise UserError(*found)


def collect(problems: list[str], check: Callable[[], Result]) -> Result | None:
    """The check's result; if it refuses, its problems are added to the list and the result is ``None``."""
    try:
        return check()
    except UserError as error:
        problems.extend(error.problems)
        return None


@contextmanager
def renamed(keys: Mapping[str, str]) -> Iterator[None]:
    """What the body refuses by a key of ``keys`` is told by the key that the user gave."""
    try:
        yield
    except UserError as error:
        told = (problem.partition(":") for problem in error.problems)
        raise UserError(*(f"{keys.get(key, key)}{colon}{rest}" for key, colon, rest in told)) from None
