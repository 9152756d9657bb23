"""What ends a run before its time: a signal, a loss that is not finite, a disk that is full."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from erase.training.step_log import read_log
from tests.launch import TRAIN, at_step, started, train, train_and_stop, unet, wait_until
from tests.properties import assert_same_bits
from tests.tiny import save_tiny, write_config

STEPS = 80


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


def remains(folder: Path) -> list[str]:
    """Anything but whole checkpoints, the settings and the log."""
    kept = {"config.yaml", "steps.jsonl"}
    return [p.name for p in folder.iterdir() if p.name not in kept and not p.name.startswith("checkpoint-")]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_after_a_step_with_a_checkpoint(
    model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = write_config(tmp_path, model, max_train_steps=str(STEPS), checkpointing_steps="1000")
    run, log = tmp_path / "run", tmp_path / "log"
    with started(tmp_path, log, str(TRAIN), "--config", "config.yaml") as process:
        wait_until(process, lambda: (run / "steps.jsonl").exists() and len(read_log(run)) >= 2)
        process.send_signal(number)
        assert process.wait(timeout=120) == code
    printed, done = log.read_text(), len(read_log(run))
    assert "Traceback" not in printed
    assert f"Interrupted after step {done} of {STEPS}" in printed
    assert "--resume_from_checkpoint latest" in printed
    assert [folder.name for folder in run.glob("checkpoint-*")] == [f"checkpoint-{done}"]
    assert remains(run) == []
    assert train(config, "--resume_from_checkpoint", "latest") == 0
    assert [line["step"] for line in read_log(run)] == list(range(1, STEPS + 1))
    assert (run / "model_index.json").exists()


def test_a_signal_in_the_last_step_lets_the_run_finish(model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, model)
    assert train_and_stop(config, 4, number=signal.SIGINT) == 0
    assert (tmp_path / "run" / "model_index.json").exists()


def test_the_handlers_of_signals_are_put_back(model: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert train_and_stop(write_config(tmp_path, model), 2) == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_ctrl_c_while_the_model_loads_ends_quietly(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("erase.training.erasure.load_base", lambda *_: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert train(write_config(tmp_path, model)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "no file was left half-written" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "step", "good"),
    [
        (["--learning_rate", "1e30"], 2, "checkpoint-1"),
        (["--forget_weight", "1e38"], 1, "none was written"),
        (["--update.alpha", "{name: absolute, value: 1.0e+30}"], 1, "none was written"),
        (
            ["--forget_weight", "1e3", "--update", "{mode: exact, alpha: {name: absolute, value: 3.0e+38}}"],
            1,
            "none was written",
        ),
    ],
    ids=["weights overflow", "gradient overflows", "chained's look-ahead overflows", "exact's product overflows"],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_and_says_where(
    model: Path, tmp_path: Path, arguments: list[str], step: int, good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And before it touches the weights: in the last two, the losses are finite and the update is not."""
    config = write_config(tmp_path, model, checkpointing_steps="1")
    assert train(config, *arguments) == 2
    printed = capsys.readouterr().err
    assert f"step {step}: " in printed
    assert "not finite" in printed
    assert "forget: a" in printed, "a prompt of the batch"
    assert "retain: a" in printed
    assert f"last checkpoint: {good}; it goes on with its own settings alone" in printed.replace(
        f"{tmp_path / 'run'}/", ""
    )
    key = "value" if any("absolute" in argument for argument in arguments) else "ratio"
    assert f"start again with a smaller learning_rate or forget_weight or update.alpha.{key}" in printed
    assert "Traceback" not in printed
    assert len(read_log(tmp_path / "run")) == step - 1
    assert remains(tmp_path / "run") == []


@contextmanager
def full_disk_after(step: int) -> Iterator[None]:
    """A real failure to write: once the step is logged, the kernel refuses files beyond 100 kB (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("every", "step", "says"),
    [
        (2, 3, ["checkpoint-4 could not be written", "checkpoint-2 is whole", "resume"]),
        (3, 4, ["output_dir", "could not be written"]),
    ],
    ids=["the second checkpoint", "the result"],
)
def test_a_full_disk_leaves_the_checkpoint_before_whole(
    model: Path, tmp_path: Path, every: int, step: int, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = write_config(tmp_path, model, checkpointing_steps=str(every)), tmp_path / "run"
    with full_disk_after(step):
        assert train(config) == 2
    printed = capsys.readouterr().err
    assert [text for text in says if text not in printed] == []
    assert "Traceback" not in printed
    assert [folder.name for folder in run.glob("checkpoint-*")] == [f"checkpoint-{every}"]
    assert remains(run) == []
    assert train(config, "--resume_from_checkpoint", "latest") == 0
    assert train(config, "--output_dir", str(tmp_path / "whole")) == 0
    assert_same_bits(unet(run).values(), unet(tmp_path / "whole").values())


def test_a_full_disk_at_the_first_checkpoint_says_that_there_is_none(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk_after(1):
        assert train(write_config(tmp_path, model)) == 2
    printed = capsys.readouterr().err
    assert "checkpoint-2 could not be written" in printed
    assert "there is no earlier one" in printed
    assert remains(tmp_path / "run") == []
