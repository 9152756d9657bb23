"""The shipped YAMLs of audits and generations: each builds, asks for what its prompts hold, and carries its command."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest

from erase.command_line import parse
from erase.config import load
from erase.evaluation.audit_settings import Audit, check_concepts, judge_of, metrics_of, uses_shapes
from erase.evaluation.metrics import ClipAccuracy, ZeroShot
from erase.generation.prompt_csv import read_prompt_set
from erase.generation.settings import Generation
from erase.training.erasure import ErasureRun
from tests.launch import ROOT

KINDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "audit": (Audit, ("erase audit ", "accelerate launch erase/audit.py ")),
    "generation": (Generation, ("erase generate ", "accelerate launch erase/generate.py ")),
}
FILES = [file for kind in KINDS for file in sorted((ROOT / "configs" / kind).glob("*.yaml"))]
BROUGHT = ("nudity",)
"""Audits of prompts that the user brings; test_sd_configs.py has them."""
AUDITS = [file for file in FILES if file.parent.name == "audit" and file.stem not in BROUGHT]


def header(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]


def test_every_folder_of_configs_is_tested() -> None:
    elsewhere = {"accelerate", "classification", "diffusion"}
    assert {folder.name for folder in (ROOT / "configs").iterdir()} == {*elsewhere, *KINDS}
    assert len(FILES) >= 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_header_says_what_it_is_and_its_command_runs_it(file: Path) -> None:
    settings, starts = KINDS[file.parent.name]
    assert header(file)[0].endswith(".") and any("Expect:" in line for line in header(file))
    (command,) = [line.removeprefix(start) for line in header(file) for start in starts if line.startswith(start)]
    given = parse(command.split(), frozenset())
    assert given.config is not None and (ROOT / given.config).samefile(file)
    load(settings, file, given.overrides)


@pytest.mark.parametrize("file", AUDITS, ids=lambda file: file.stem)
def test_an_audits_target_and_judge_know_what_its_prompts_ask_for(file: Path) -> None:
    audit = load(Audit, file)
    judge_of(audit, metrics_of(audit))
    if uses_shapes(audit):
        return
    rows = read_prompt_set(ROOT / str(audit.prompts), seed=audit.seed)
    check_concepts(audit, rows)
    judge = next((metric for metric in audit.metrics if isinstance(metric, ZeroShot)), None)
    if judge is None:  # ImageNet's judge has a list of its own
        assert judge_of(audit, audit.metrics) == "imagenet_classifier"
        return
    for domain in {domain for row in rows for domain in row.concepts}:
        assert {row.concepts[domain] for row in rows if domain in row.concepts} == set(judge.concepts[domain])


def audits_of_runs() -> list[tuple[str, str]]:
    """The audit commands in the headers of runs, each with the run's name."""
    files = sorted((ROOT / "configs" / "diffusion").glob("*.yaml"))
    lines = [(file.stem, line.split("     #")[0]) for file in files for line in header(file)]
    return [(name, line) for name, line in lines if line.startswith("erase audit ")]


@pytest.mark.parametrize(("name", "command"), audits_of_runs())
def test_the_audit_that_a_run_names_is_of_its_target(name: str, command: str) -> None:
    given = parse(shlex.split(command)[2:], frozenset())
    assert given.config is not None
    audit = load(Audit, ROOT / given.config, given.overrides)
    for place, metric in enumerate(audit.metrics):
        if isinstance(metric, ClipAccuracy) and not audit.all_target:
            metric.check_target(f"metrics.{place}", audit.target)
    run = load(ErasureRun, ROOT / "configs" / "diffusion" / f"{name}.yaml")
    assert audit.all_target or audit.target in [target.concept for target in run.targets]
    assert Path(audit.erased) == run.output_dir
