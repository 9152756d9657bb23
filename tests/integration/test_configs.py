"""Every shipped YAML is a run, says what it is, and carries the command that runs it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from erase.command_line import Arguments, parse
from erase.config import load
from erase.diffusion.settings import make_plan
from erase.training.erasure import ErasureRun
from erase.updates import LUR
from tests.launch import ROOT

FILES = sorted((ROOT / "configs").rglob("*.yaml"))
DEFAULT = ROOT / "erase" / "shapes" / "default.yaml"
ALL = [*FILES, DEFAULT]
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
    assert given.config == file.relative_to(ROOT)
    load(ErasureRun, ROOT / given.config, given.overrides)


@each
def test_its_header_says_what_to_expect(file: Path) -> None:
    text = " ".join(header(file)).lower()
    assert "expect" in text or "writes" in text or len(header(file)) >= 3


@each
def test_its_plan_can_be_made(file: Path) -> None:
    run = load(ErasureRun, file)
    if run.retain_loss.needs_images:
        pytest.skip("needs the user's images")
    plan = make_plan(run)
    assert [target.target for target in plan.targets] == list(run.targets)
    assert all(target.prompts for target in plan.targets)
    assert plan.retain


def test_each_writes_to_a_folder_of_its_own() -> None:
    folders = [load(ErasureRun, file).output_dir for file in ALL]
    assert len(set(folders)) == len(folders)


def test_the_default_is_the_main_config_but_for_its_folder() -> None:
    default, star = load(ErasureRun, DEFAULT), load(ErasureRun, ROOT / "configs" / "diffusion" / "shapes_star.yaml")
    assert default.output_dir != star.output_dir
    assert replace(default, output_dir=star.output_dir) == star


def test_the_latents_of_the_default_erasure_are_at_most_a_quarter_of_its_evaluations() -> None:
    run = load(ErasureRun, DEFAULT)
    latents = (run.latents.forget + run.latents.retain) * run.latents.steps * 2  # with the prompt and without
    step = run.train_batch_size * (2 + 1 + 1 + 2)  # base on p and n, forget; base on p, retain twice
    assert isinstance(run.update, LUR) and run.update.mode == "chained"
    assert latents <= (latents + step * run.max_train_steps) / 4
