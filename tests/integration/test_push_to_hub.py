"""`push_to_hub` of a training config: refused before training where it could not be written, done after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from erase.cli import main
from tests.hub_client import TOKEN, client
from tests.hub_server import HubServer, hub
from tests.hub_state import Fault, State, User
from tests.tiny import write_config

REPO = "me/sd-without-star"
READER = "hf_reader0000000000"
TRAIN = "import sys; from erase.cli import main; sys.exit(main(['train', *sys.argv[1:]]))"
PUBLISH = TRAIN.replace("train", "publish")


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub(State({TOKEN: User("me"), READER: User("me", "read")})) as running:
        yield running


@pytest.fixture
def words(model: Path, tmp_path: Path) -> list[str]:
    config = write_config(tmp_path, model)
    return ["--config", str(config), "--push_to_hub", "true", "--hub_model_id", REPO]


@pytest.mark.slow
def test_a_run_is_published_when_it_is_done(server: HubServer, words: list[str], tmp_path: Path) -> None:
    done = client(server, tmp_path, TRAIN, *words, "--hub_private_repo", "true")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "published.json").read_text())
    assert record["commit"] == server.state.repos[REPO].refs["main"] and record["commit_url"] in done.stdout
    assert server.state.repos[REPO].private
    assert TOKEN not in done.stdout + done.stderr
    assert not [file for file in (tmp_path / "run").rglob("*.*") if TOKEN.encode() in file.read_bytes()]


@pytest.mark.slow
def test_who_may_not_write_is_told_before_training(server: HubServer, words: list[str], tmp_path: Path) -> None:
    failed = client(server, tmp_path, TRAIN, *words, token=READER)
    assert failed.returncode == 2 and "may not write" in failed.stderr and "Traceback" not in failed.stderr
    assert not (tmp_path / "run").exists() and not server.state.repos


@pytest.mark.slow
def test_a_failed_upload_leaves_the_run_whole_and_says_how_to_go_on(
    server: HubServer, words: list[str], tmp_path: Path
) -> None:
    server.state.faults = [Fault("PUT /lfs", "cut", times=1000)]
    failed = client(server, tmp_path, TRAIN, *words)
    command = f"{tmp_path / 'run'} --repo_id {REPO}"
    assert failed.returncode == 2 and f"erase publish {command}" in failed.stderr
    server.state.faults = []
    assert client(server, tmp_path, PUBLISH, *command.split()).returncode == 0
    assert (tmp_path / "run" / "published.json").is_file()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--push_to_hub", "true"], "hub_model_id: must be given with push_to_hub"),
        (["--hub_model_id", REPO], "do nothing without push_to_hub"),
        (["--push_to_hub", "true", "--hub_model_id", "model"], "must be OWNER/NAME"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    more: list[str], expected: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--config", str(write_config(tmp_path, model)), *more]) == 2
    assert expected in capsys.readouterr().err and not (tmp_path / "run").exists()
