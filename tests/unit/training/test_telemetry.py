"""What a step tells reaches the trackers as it stands in the log, and the progress bar as far as it is meant for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from erase.training.step_log import read_log
from erase.updates import LUR, AlternatingSteps, RetainOnly, WeightedSum
from tests.unit.training.runs import make_run

RULES = [LUR(), LUR(mode="alternating", measure_every=2), WeightedSum(), AlternatingSteps(), RetainOnly()]
NAMES = ["chained", "alternating", "sum", "steps", "retain"]
FRAME = re.compile(r"(\d+)/4 \[[^\]]*?, (\w+=[^\]]*)\]")
"""Of a drawn bar: its step, and what stands behind its times."""


class Recorder(GeneralTracker):
    """A tracker that remembers."""

    name = "recorder"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int | None, dict[str, Any]]] = []

    @property
    def tracker(self) -> list[tuple[int | None, dict[str, Any]]]:
        return self.calls

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Nothing to remember."""

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.calls.append((step, values))


@pytest.mark.parametrize("update", RULES, ids=NAMES)
def test_a_tracker_gets_every_number_of_every_line_and_nothing_else(tmp_path: Path, update: Any) -> None:
    run, recorder = make_run(tmp_path, update=update, probe_every=2), Recorder()
    run.accelerator = Accelerator(log_with=recorder)
    run.accelerator.init_trackers("erase")
    run.train()
    lines = [{key: value for key, value in line.items() if value is not None} for line in read_log(tmp_path)]
    assert recorder.calls == [(line.pop("step"), line) for line in lines]
    assert {"inner_before", "cosine_after/up.attention", "retain_norm/mid.attention"} <= recorder.calls[-1][1].keys()


@pytest.mark.parametrize("update", RULES, ids=NAMES)
def test_the_bar_shows_losses_and_the_cosine_alone(
    tmp_path: Path, update: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, update=update, probe_every=2).train()
    shown = {int(step): text.split(", ") for step, text in FRAME.findall(capsys.readouterr().err)}
    wanted = {}
    for line in read_log(tmp_path):
        texts = [f"{k}={line[f'{k}_loss']:.3g}" for k in ("forget", "retain") if line[f"{k}_loss"] is not None]
        wanted[line["step"]] = texts + ([] if line["cosine"] is None else [f"cosine={line['cosine']:+.2f}"])
    assert shown == wanted
