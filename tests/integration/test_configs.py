"""Every shipped YAML is a run, says what it is, and carries the command that runs it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from erase.command_line import Arguments, find_config, parse
from erase.config import load
from erase.diffusion.settings import make_plan
from erase.train import main
from erase.training.erasure import ErasureRun
from erase.training.step_log import read_log
from erase.updates import LUR
from tests.launch import ROOT
from tests.tiny import draw_captioned

FILES = sorted((ROOT / "configs" / "diffusion").rglob("*.yaml"))
DEFAULT = ROOT / "erase" / "shapes" / "default.yaml"
ALL = [*FILES, DEFAULT]
SHAPES = [file for file in ALL if not file.stem.startswith("sd")]
"""Those of the embedded model; the others train in test_sd_configs.py."""
STARTS = ("accelerate launch erase/train.py ", "erase train ")

each = pytest.mark.parametrize("file", ALL, ids=lambda file: file.stem)


def header(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]


def command(file: Path) -> Arguments:
    """The one command of the header, taken apart."""
    found = [(line, start) for line in header(file) for start in STARTS if line.startswith(start)]
    assert len(found) == 1, f"{len(found)} commands in the header"
    line, start = found[0]
    return parse(line.removeprefix(start).split("#")[0].split(), frozenset({"dry_run"}))


def test_there_are_configs() -> None:
    assert len(FILES) >= 7


@each
def test_it_builds(file: Path) -> None:
    run = load(ErasureRun, file)
    assert run.task == "diffusion"
    assert run.output_dir.parts[0] == "runs"


@each
def test_its_header_says_what_it_is_and_its_command_runs_it(file: Path) -> None:
    assert header(file)[0].endswith(".")
    given = command(file)
    found = find_config(given.config, DEFAULT)
    assert found is not None and (ROOT / found).samefile(file)
    load(ErasureRun, file, given.overrides)


@each
def test_its_header_says_what_to_expect(file: Path) -> None:
    assert "Expect" in " ".join(header(file))


def needs_images(file: Path) -> bool:
    return "{name: denoising}" in file.read_text(encoding="utf-8")


@each
def test_its_plan_can_be_made(file: Path) -> None:
    run = load(ErasureRun, file, [f"retain.images={ROOT}"] if needs_images(file) else [])
    plan = make_plan(run)
    assert plan.targets and [target.target for target in plan.targets] == list(run.targets)
    assert all(target.prompts for target in plan.targets)
    assert bool(plan.retain) != run.retain_loss.needs_images


@pytest.mark.slow
@pytest.mark.parametrize("file", SHAPES, ids=lambda file: file.stem)
def test_it_trains_the_embedded_model(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, object] = {"latents.forget": 2, "latents.neutral": 2, "latents.retain": 2, "latents.steps": 1}
    few |= {"latents.cache_dir": tmp_path / "cache", "train_batch_size": 2, "max_train_steps": 2}
    few |= {"lr_warmup_steps": 0, "output_dir": tmp_path / "run"}
    if needs_images(file):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
        few["retain.images"] = draw_captioned(tmp_path / "images", ["a red ring in flat style", "a blue moon"])
    overrides = [text for key, value in few.items() for text in (f"--{key}", str(value))]
    assert main(["--config", str(file), *overrides]) == 0
    assert len(read_log(tmp_path / "run")) == 2
    result = "merged/model_index.json" if "lora" in file.stem else "model_index.json"
    assert (tmp_path / "run" / result).exists()


def test_each_writes_to_a_folder_of_its_own() -> None:
    folders = [load(ErasureRun, file).output_dir for file in ALL]
    assert len(set(folders)) == len(folders)


def test_the_default_is_the_main_config_but_for_its_folder() -> None:
    default, star = load(ErasureRun, DEFAULT), load(ErasureRun, ROOT / "configs" / "diffusion" / "shapes_star.yaml")
    assert default.output_dir != star.output_dir
    assert replace(default, output_dir=star.output_dir) == star


def test_the_latents_of_the_default_erasure_are_at_most_a_quarter_of_its_evaluations() -> None:
    run = load(ErasureRun, DEFAULT)
    latents = (
        (run.latents.forget + run.latents.neutral + run.latents.retain) * run.latents.steps * 2
    )  # with the prompt and without
    step = run.train_batch_size * (2 + 1 + 1 + 2)  # base on p and n, forget; base on p, retain twice
    assert isinstance(run.update, LUR) and run.update.mode == "chained"
    assert latents <= (latents + step * run.max_train_steps) / 4
