"""A user's mistakes: one or several, in order, as text and one by one."""

from __future__ import annotations

import pytest

from erase.errors import UserError, refuse


def test_mistakes_are_kept_apart_and_read_line_by_line() -> None:
    error = UserError("seed: found -1; input should be 0 or more", "model: missing")
    assert error.problems == ("seed: found -1; input should be 0 or more", "model: missing")
    assert str(error).splitlines() == list(error.problems)


def test_a_text_with_braces_and_percent_signs_stays_as_it_is() -> None:
    assert str(UserError("{key} 100% {}")) == "{key} 100% {}"


def test_nothing_wrong_raises_nothing() -> None:
    refuse([])
    refuse(iter([]))


def test_all_that_is_wrong_is_raised_at_once() -> None:
    with pytest.raises(UserError) as caught:
        refuse(f"problem {index}" for index in range(3))
    assert caught.value.problems == ("problem 0", "problem 1", "problem 2")
