"""Every shipped YAML of a classifier's unlearning is a run that says what it is, and its method runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.classification.models import load_classifier
from erase.config import load
from erase.train import main
from erase.training.step_log import read_log
from erase.training.unlearning_settings import UnlearningRun, check_unlearning
from tests.integration.test_configs import command, header
from tests.launch import ROOT

FILES = sorted((ROOT / "configs" / "classification").glob("*.yaml"))
OFFLINE = [file for file in FILES if not file.stem.startswith(("cifar", "folder"))]
SMALL = {
    "model.source": "timm",
    "model.architecture": "test_resnet",
    "model.stem": "standard",
    "original.max_train_steps": 2,
    "original.train_batch_size": 8,
    "train_batch_size": 8,
}
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path_factory.getbasetemp() / "unlearning-cache"))


@each
def test_it_builds_and_its_header_says_what_it_is_and_what_to_expect(file: Path) -> None:
    run = load(UnlearningRun, file)
    check_unlearning(run)
    assert header(file)[0].endswith(".")
    assert "Expect" in " ".join(header(file))
    given = command(file)
    assert given.config is not None and (ROOT / given.config).samefile(file)
    assert run.output_dir.parts[0] == "runs"


def test_each_writes_to_a_folder_of_its_own() -> None:
    folders = [load(UnlearningRun, file).output_dir for file in FILES]
    assert len(set(folders)) == len(folders)


@pytest.mark.slow
@pytest.mark.parametrize("file", OFFLINE, ids=lambda file: file.stem)
def test_its_method_runs_with_a_small_network(file: Path, tmp_path: Path) -> None:
    steps = min(2, load(UnlearningRun, file).max_train_steps)
    few = SMALL | {"max_train_steps": steps, "output_dir": tmp_path / "run"}
    few |= {"lr_warmup_steps": 0} if file.stem == "digits_retrain" else {}
    few |= {"start.samples": 4} if "influence" in file.stem else {}
    few |= {"data.images": 240} if file.stem.startswith("shapes") else {}
    words = [word for key, value in few.items() for word in (f"--{key}", str(value))]
    assert main(["--config", str(file), *words]) == 0
    assert len(read_log(tmp_path / "run")) == steps if steps else not read_log(tmp_path / "run")
    _, description = load_classifier(tmp_path / "run")
    assert len(description.classes) in (8, 10)


def test_without_cached_weights_a_plan_needs_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(ROOT / "configs/classification/digits_random10.yaml"), "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "forget: random: 130 samples" in said
    assert "update: lur, losses gradient_ascent + cross_entropy" in said


def test_a_plan_says_which_rule_steps_in_turn_follow(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--update", "alternating_steps", "--update.rule", "nash", "--dry_run"]
    assert main(["--config", str(ROOT / "configs/classification/digits_random10.yaml"), *words]) == 0
    assert "update: alternating_steps of nash, losses" in capsys.readouterr().out
