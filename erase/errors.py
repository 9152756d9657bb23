"""What a user's mistake raises: shown without a traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Result = TypeVar("Result")


class UserError(Exception):
    """One or several mistakes, each a sentence that names the key or file, the value, the rule and the remedy."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


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
