"""The commands and files that README and the guide name are there, under these names."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator

import pytest
import yaml

from erase import embedded
from erase.config import keys
from erase.evaluation.audit_settings import Audit
from erase.evaluation.panels import PANELS
from erase.generation.settings import Generation
from erase.publication.settings import Publication
from erase.training.erasure import ErasureRun
from tests.launch import ROOT

DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md")}
COMMANDS = {"train": ErasureRun, "audit": Audit, "generate": Generation, "publish": Publication}
FLAGS = {"config", "dry_run", "help", "config_file", "num_processes"}
PATH = re.compile(r"\b(?:configs|prompts|pipelines|docs|erase)/[\w./-]*\w\.(?:yaml|csv|py|md|svg|png)")


def commands() -> Iterator[tuple[str, list[str]]]:
    """What follows `erase COMMAND`, or `accelerate launch erase/COMMAND.py`, in a block of shell."""
    for text in DOCUMENTS.values():
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                found = re.search(r"(?:^erase |erase/)(\w+)(?:\.py)?\s+(.*)", line)
                if found and found[1] in COMMANDS:
                    yield found[1], shlex.split(found[2], comments=True)


@pytest.mark.parametrize(("command", "words"), list(commands()), ids=str)
def test_every_key_of_a_command_is_known(command: str, words: list[str]) -> None:
    known = {field.name for field in dataclasses.fields(COMMANDS[command])} | FLAGS
    asked = {word.removeprefix("--").partition(".")[0] for word in words if word.startswith("--")}
    assert asked <= known


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_is_there(name: str) -> None:
    named = set(PATH.findall(DOCUMENTS[name]))
    assert named and [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_setting_and_every_number_of_the_log_that_the_guide_names_is_one() -> None:
    guide = DOCUMENTS["docs/guide.md"]
    for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL):
        assert set(yaml.safe_load(block)) <= keys(ErasureRun)
    known = keys(ErasureRun) | keys(Audit) | keys(Publication)
    named = {key for text in re.findall(r"`([a-z_.]+): ?[^`]*`", guide) for key in text.split(".")}
    named |= {key for text in re.findall(r"`([a-z]+_[a-z_.]+)`", guide) for key in text.split(".")}
    values = {"anchor_redirection", "negative_guidance", "cross_attention", "not_cross_attention"}
    logged = {curve.key for panel in PANELS for curve in panel.curves}
    assert len(named) > 15 and named - known - values - logged == set()
    blocks = {text for text in re.findall(r"`([a-z_]+/[a-z_.]+)`", guide) if "." in text and not PATH.match(text)}
    assert blocks and blocks <= logged


def test_the_minutes_of_a_build_are_those_of_its_record() -> None:
    record = json.loads((embedded.WEIGHTS / "build.json").read_text(encoding="utf-8"))
    seconds = {part: made["seconds"] for part, made in record.items()}
    diffusion, classifier, clip, check = (
        round(seconds[part] / 60) for part in ("pipeline", "classifier", "clip", "check")
    )
    text = " ".join(DOCUMENTS["README.md"].split())
    assert f"that took {round(sum(seconds.values()) / 60)} minutes" in text
    assert f"{diffusion} for the diffusion model" in text
    assert f"{classifier} for the classifier, {clip} for the open_clip model, {check} for the check" in text


def test_the_figures_of_the_look_ahead_are_those_of_the_sweep() -> None:
    table = (ROOT / "pipelines" / "results" / "alpha_sweep.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    found = {(row[0], float(row[1])): (float(row[3]), float(row[4])) for row in cells}
    text = " ".join(DOCUMENTS["README.md"].split())
    absolute, default = found["absolute", 0.1], found["correction (default)", 0.1]
    assert f"alpha of 0.1 (UA {absolute[0]:.0f}, IRA {absolute[1]:.1f})" in text
    assert f"the default among them ({default[0]:.1f}, {default[1]:.1f})" in text
    ratios = [scores for (by, _), scores in found.items() if by.startswith("correction")]
    assert len(ratios) > 5 and all(absolute >= scores and absolute[1] > scores[1] for scores in ratios)
