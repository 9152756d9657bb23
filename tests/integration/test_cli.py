"""The `erase` command: its help, its version and what it says to a word that it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

import erase
from erase import cli
from erase.config import keys
from erase.training.erasure import ErasureRun
from tests.launch import listing
from tests.tiny import save_tiny, write_config


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if f"erase {name}" not in printed] == []
    assert {"train", "demo"} <= set(cli.COMMANDS)


def test_an_unknown_command_is_refused_and_the_known_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    printed = capsys.readouterr().err
    assert "'trian'" in printed
    assert "train" in printed.replace("trian", "")


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == erase.__version__


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_train_help_lists_every_key_with_its_default(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", flag]) == 0
    printed = capsys.readouterr().out
    listed = {line.split()[0].removeprefix("--").split(".")[-1] for line in printed.splitlines() if "--" in line[:4]}
    assert keys(ErasureRun) - listed == {"name"}
    assert "update.name=weighted_sum" in printed
    for expected in ("--learning_rate", "default 1e-05", "--targets", "must be given", "--update.mode", "chained"):
        assert expected in printed
    assert "--dry_run" in printed


def test_every_key_of_train_help_has_a_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    top = [i for i, line in enumerate(lines) if line.startswith("  --") and "." not in line.split()[0]]
    assert [lines[i] for i in top if i + 1 == len(lines) or not lines[i + 1].startswith(" " * 8)] == []


def test_train_help_says_what_shapes_is_and_where_the_other_domain_is_described(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "`erase train --task classification --help`" in printed and "`shapes`: the shipped run" in printed
    assert cli.main(["train", "--task", "classification", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "`erase train --help`" in printed and "--split_seed" in printed and "the shipped run" not in printed


def test_the_usage_speaks_of_both_domains() -> None:
    (line,) = [line for line in cli.usage().splitlines() if line.startswith("  erase train ")]
    assert "Stable Diffusion" in line and "classifier" in line


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["audit"], "erase audit --erased FOLDER --target star"),
        (["generate"], "erase generate --prompts shapes --output_dir FOLDER"),
        (["publish"], "give a YAML file of this command"),
        (["train", "--task", "classification"], "configs/classification"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_shipped_runs_name_is_for_training_and_others_say_what_to_write(
    words: list[str], instead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--config", "shapes"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"erase {words[0]}: --config shapes: it names") and instead in line


def test_help_wins_over_everything_else_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", "nowhere.yaml", "--help"]) == 0
    assert "erase train" in capsys.readouterr().out


def test_train_is_reached_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, save_tiny(tmp_path / "model"))
    before = listing(tmp_path)
    assert cli.main(["train", "--config", str(config), "--dry_run"]) == 0
    assert "star: 42 prompts" in capsys.readouterr().out
    assert listing(tmp_path) == before
