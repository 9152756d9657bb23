"""Command lines: how one is taken apart, and what a command's end looks like from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.command_line import GRACE, Arguments, find_config, parse, run_command, stoppable
from erase.components import STRICT
from erase.embedded import DEFAULT_CONFIG
from erase.errors import UserError
from erase.generation.run import Stopped
from erase.training.interruption import Interrupted

FLAGS = frozenset({"dry_run"})


@dataclass(frozen=True, config=STRICT)
class Settings:
    """A command for the tests."""

    steps: Annotated[int, Field(ge=1)] = 1
    """how many"""
    loud: bool = False
    """how loud"""
    note: str = ""
    """what to say"""


def overrides(*words: str) -> tuple[str, ...]:
    return parse(words, FLAGS).overrides


def test_nothing_is_nothing() -> None:
    assert parse([], FLAGS) == Arguments(None, (), frozenset())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "3"], ("steps=3",)),
        (["--steps=3"], ("steps=3",)),
        (["--update.alpha.value", "0.1"], ("update.alpha.value=0.1",)),
        (["--targets.0.concept", "Van Gogh"], ("targets.0.concept=Van Gogh",)),
        (["--overwrite"], ("overwrite=true",)),
        (["--overwrite", "--steps", "3"], ("overwrite=true", "steps=3")),
        (["--steps", "-1"], ("steps=-1",)),
        (["--note", ""], ("note=",)),
        (["--note="], ("note=",)),
        (["--note", "a=b"], ("note=a=b",)),
        (["--note=a=b"], ("note=a=b",)),
        (["--note=--loud"], ("note=--loud",)),
        (["--targets", "[{concept: star}]"], ("targets=[{concept: star}]",)),
        (["--steps", "1", "--steps", "2"], ("steps=1", "steps=2")),
    ],
)
def test_keys_and_values_are_paired(words: list[str], expected: tuple[str, ...]) -> None:
    assert parse(words, FLAGS) == Arguments(None, expected, frozenset())


@pytest.mark.parametrize("words", [["--config", "a/b.yaml"], ["--config=a/b.yaml"]])
def test_the_config_is_a_file_and_no_override(words: list[str]) -> None:
    assert parse([*words, "--steps", "3"], FLAGS) == Arguments(Path("a/b.yaml"), ("steps=3",), frozenset())


def test_the_name_of_the_shipped_run_is_its_file_where_there_is_one() -> None:
    assert find_config(Path("shapes"), DEFAULT_CONFIG) == DEFAULT_CONFIG
    assert find_config(Path("a/b.yaml"), DEFAULT_CONFIG) == Path("a/b.yaml")
    assert find_config(None, DEFAULT_CONFIG) is None


def test_the_name_of_the_shipped_run_says_elsewhere_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--config shapes: do that instead$"):
        find_config(Path("shapes"), "do that instead")
    (tmp_path / "shapes").write_text("steps: 3\n")
    assert find_config(Path("shapes"), "do that instead") == Path("shapes"), "a file of that name is a file"


def test_a_flag_takes_no_value() -> None:
    assert parse(["--dry_run", "--steps", "3"], FLAGS) == Arguments(None, ("steps=3",), FLAGS)
    assert parse(["--dry_run", "--steps", "3"], frozenset()).overrides == ("dry_run=true", "steps=3")


@pytest.mark.parametrize("words", [["steps", "3"], ["-s", "3"], ["--"], ["--steps", "3", "4"], ["--dry_run", "true"]])
def test_a_word_without_a_key_is_named(words: list[str]) -> None:
    odd = {"--steps": "4", "--dry_run": "true"}.get(words[0], words[0])
    with pytest.raises(UserError, match="expected --KEY VALUE") as caught:
        parse(words, FLAGS)
    assert str(caught.value).startswith(repr(odd))


def run(*words: str, fail: BaseException | None = None) -> tuple[int, list[Settings]]:
    seen: list[Settings] = []

    def command(settings: object, _: Arguments) -> None:
        assert isinstance(settings, Settings)
        seen.append(settings)
        if fail is not None:
            raise fail

    return run_command("test", Settings, command, words, "dry_run"), seen


def test_a_command_gets_its_settings_and_ends_with_0(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("steps: 3\nnote: file\n", encoding="utf-8")
    assert run("--config", str(file), "--loud", "--note", "line") == (0, [Settings(steps=3, loud=True, note="line")])


def test_mistakes_are_printed_one_a_line_and_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--steps", "0", "--note", "[1]") == (2, [])
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("erase test: steps: found 0;")
    assert lines[1].startswith("erase test: note: found [1];")


def test_a_process_that_outlives_the_first_says_that_the_mistake_is_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setenv("RANK", "1")
    assert run(fail=UserError("seed: odd"))[0] == 2
    assert capsys.readouterr().err == "erase test, process 1: seed: odd\n"
    assert waits == [GRACE]


def test_a_mistake_found_later_ends_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail=UserError("model: missing", "seed: odd"))[0] == 2
    assert capsys.readouterr().err == "erase test: model: missing\nerase test: seed: odd\n"


def test_a_device_that_is_full_is_a_mistake_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a capacity of 8 GiB")
    assert run(fail=full)[0] == 2
    said = capsys.readouterr().err
    assert said.startswith("erase test: CUDA out of memory; a smaller batch_size needs less")
    assert len(said.splitlines()) == 1


def test_another_fault_of_the_programs_own_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="ours"):
        run(fail=RuntimeError("ours"))


@pytest.mark.parametrize("number", [2, 15])
def test_an_interruption_ends_with_the_shells_code_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert run(fail=Interrupted("resume with this", number))[0] == 128 + number
    assert "resume with this" in capsys.readouterr().err


def test_ctrl_c_before_training_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail=KeyboardInterrupt())[0] == 130
    said = capsys.readouterr().err
    assert "no file was left half-written" in said and "--overwrite would begin anew" in said


def test_pictures_that_were_stopped_go_on_without_overwriting() -> None:
    def work(_: object) -> None:
        raise Stopped("3 of 9 images are in runs/pictures")

    says = r"3 of 9 images are in runs/pictures\. To go on, run the same command again, without --overwrite$"
    with pytest.raises(Interrupted, match=says):
        stoppable(work)


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(fail=ZeroDivisionError())


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_printed_and_nothing_is_run(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run("--steps", "0", word) == (0, [])
    assert capsys.readouterr().out.startswith("erase test --config FILE [--KEY VALUE ...]\n\nA command for the tests.")
