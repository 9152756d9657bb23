"""What a judge cannot tell is refused before a picture is made."""

from __future__ import annotations

import pytest

from erase.evaluation.judges import judge_problems
from erase.evaluation.metrics import AnyMetric, Nudity, ZeroShot
from erase.generation.prompts import PromptRow

KEPT = [
    PromptRow("1", "a ring", 2, concepts={"object": "ring"}),
    PromptRow("2", "a red shape", 3, concepts={"color": "red"}),
]


def zero_shot(*domains: str) -> ZeroShot:
    return ZeroShot(model="shapes", concepts=dict.fromkeys(domains, ("one", "other")))


@pytest.mark.parametrize(
    ("judge", "neighbours", "message"),
    [
        (zero_shot("color"), [], "judge: zero_shot sees color, but 'star' is a concept of object"),
        (Nudity(), ["ring"], "neighbours: found 'ring'; the judge nudity knows the target alone"),
        (zero_shot("object"), ["red"], "neighbours: 'red' is asked for where it cannot be judged: zero_shot sees obj"),
        (zero_shot("object"), ["moon"], "neighbours: 'moon' is asked for where it cannot be judged"),
    ],
)
def test_what_it_cannot_tell_is_said(judge: AnyMetric, neighbours: list[str], message: str) -> None:
    (problem,) = judge_problems(judge, "star", "object", neighbours, KEPT)
    assert problem.startswith(message)


def test_what_it_can_tell_is_no_problem() -> None:
    assert judge_problems(zero_shot("object", "color"), "star", "object", ["ring", "red"], KEPT) == []
    assert judge_problems(Nudity(), "star", "object", [], KEPT) == []
