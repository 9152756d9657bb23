"""How a rule that stands in another is called: by its key, and in a line."""

from __future__ import annotations

import pytest

from erase.config import dump
from erase.updates import LUR, UPDATES, AlternatingSteps, Nash, PCGrad, Update, key_of, label, rule_of


@pytest.mark.parametrize(
    ("update", "said"),
    [
        *((kind(), name) for name, kind in UPDATES.items() if name != "torchjd"),
        (LUR(combine=Nash()), "lur with nash"),
        (AlternatingSteps(rule=PCGrad()), "alternating_steps of pcgrad"),
        (AlternatingSteps(rule=LUR()), "alternating_steps of lur"),
        (AlternatingSteps(rule=LUR(combine=Nash())), "alternating_steps of lur with nash"),
    ],
)
def test_a_rule_is_told_with_those_in_it(update: Update, said: str) -> None:
    assert label(dump(update)) == said


def test_what_an_older_run_left_unsaid_is_not_told() -> None:
    assert label({"name": "lur", "mode": "exact"}) == "lur"


def test_the_key_is_that_of_what_takes_the_step_that_forgets() -> None:
    steps = AlternatingSteps(rule=Nash())
    assert (rule_of(steps), key_of(steps)) == (Nash(), "update.rule")
    assert [key_of(update) for update in (AlternatingSteps(), LUR())] == ["update", "update"]
