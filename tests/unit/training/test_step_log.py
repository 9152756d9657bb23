"""The step log: appended to, cut back on resume, readable after a crash."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from erase.errors import UserError
from erase.training.step_log import FILE_NAME, StepLog, read_log


def write(folder: Path, first: int, *steps: int, loss: float = 0.5) -> None:
    log = StepLog(folder, first)
    for step in steps:
        log.write({"step": step, "loss": loss})
    log.close()


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_log(folder)]


def test_each_step_is_a_line(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3)
    assert read_log(tmp_path) == [{"step": step, "loss": 0.5} for step in (1, 2, 3)]
    assert len((tmp_path / FILE_NAME).read_text(encoding="utf-8").splitlines()) == 3


def test_a_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 0)
    log.write({"step": 1})
    assert steps(tmp_path) == [1]
    log.close()


def test_a_resumed_run_drops_the_lines_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3, 4)
    write(tmp_path, 2, 3, 4, 5, loss=0.25)
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [
        (1, 0.5),
        (2, 0.5),
        (3, 0.25),
        (4, 0.25),
        (5, 0.25),
    ]


def test_an_interrupted_log_is_byte_for_byte_that_of_a_run_without_interruption(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    write(whole, 0, 1, 2, 3, 4, loss=1 / 3)
    write(resumed, 0, 1, 2, 3, loss=1 / 3)
    write(resumed, 2, 3, 4, loss=1 / 3)
    assert (resumed / FILE_NAME).read_bytes() == (whole / FILE_NAME).read_bytes()


def test_a_run_from_the_start_drops_everything(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2)
    write(tmp_path, 0, 1)
    assert steps(tmp_path) == [1]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3)
    file = tmp_path / FILE_NAME
    file.write_text(file.read_text(encoding="utf-8")[:-8], encoding="utf-8")
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, 2, 3)
    assert steps(tmp_path) == [1, 2, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, a disk that is always full, is Linux's")
def test_a_full_disk_is_said_with_the_way_on(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 0)
    log.close()
    log.stream = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(UserError, match=r"output_dir: .*steps.jsonl cannot be written: .*; free space, then --resume"):
        log.write({"step": 1})
    with suppress(OSError):
        log.close()
