"""What FSDP cannot do, by the keys of whoever asks for it."""

from __future__ import annotations

import pytest

from erase.config import load
from erase.training.settings import TrainingSettings
from erase.training.sharding import sharding_problems

STEPS = "update=alternating_steps"


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("FSDP_VERSION", "2")


def refused(*words: str) -> list[str]:
    return [
        problem.split(":")[0] for problem in sharding_problems(load(TrainingSettings, None, ["output_dir=x", *words]))
    ]


def test_second_derivatives_are_refused_by_the_key_that_asks_for_them() -> None:
    assert refused() == []
    assert refused("update.mode=exact") == ["update.mode"]
    assert refused(STEPS, "update.rule=lur", "update.rule.mode=exact") == ["update.rule.mode"]


def test_a_look_at_whole_gradients_is_refused_by_the_key_that_asks_for_it() -> None:
    for words, block in (
        (["update=torchjd"], "update"),
        (["update=lur", "update.combine=torchjd"], "update.combine"),
        ([STEPS, "update.rule=torchjd"], "update.rule"),
        ([STEPS, "update.rule=lur", "update.rule.combine=torchjd"], "update.rule.combine"),
    ):
        assert refused(*words, f"{block}.aggregator=UPGrad") == []
        assert refused(*words, f"{block}.aggregator=ConFIG") == [f"{block}.aggregator"]
