"""What an audit compares must differ in its weights alone: neither in its scheduler nor in its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import EulerAncestralDiscreteScheduler

from erase import embedded
from erase.errors import UserError
from erase.evaluation.audit_settings import Audit, plan_audit
from erase.generation.alike import check_alike
from erase.generation.prompts import PromptRow
from erase.generation.settings import Generation
from tests.tiny import save_tiny

ROWS = [PromptRow("0", "a star", 1), PromptRow("1", "a ring", 2)]


def edit(file: Path, **given: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | given))


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return save_tiny(tmp_path / "base"), save_tiny(tmp_path / "erased", seed=1)


def check(models: tuple[Path, Path], rows: list[PromptRow] = ROWS) -> None:
    check_alike(*models, Generation(model=str(models[0]), prompts="x.csv", output_dir=Path("out")), rows)


def test_other_weights_are_no_matter(models: tuple[Path, Path]) -> None:
    check(models)


def test_a_default_that_a_file_leaves_out_is_no_difference(models: tuple[Path, Path]) -> None:
    file = models[1] / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("timestep_spacing") == "leading"
    file.write_text(json.dumps(settings))
    check(models)
    edit(file, timestep_spacing="trailing")
    with pytest.raises(UserError, match="timestep_spacing of its scheduler is 'trailing', the base's 'leading'"):
        check(models)


def test_another_scheduler_is_refused(models: tuple[Path, Path]) -> None:
    settings = json.loads((models[0] / "scheduler" / "scheduler_config.json").read_text())
    EulerAncestralDiscreteScheduler.from_config(settings).save_pretrained(models[1] / "scheduler")
    edit(models[1] / "model_index.json", scheduler=["diffusers", "EulerAncestralDiscreteScheduler"])
    with pytest.raises(UserError, match="samples by EulerAncestralDiscreteScheduler, the base by DDIM"):
        check(models)


def test_another_size_is_refused_unless_every_prompt_has_its_own(models: tuple[Path, Path]) -> None:
    edit(models[1] / "unet" / "config.json", sample_size=24)
    with pytest.raises(UserError, match=r"draws \d+ x \d+ pixels, the base \d+ x \d+; give the prompts columns"):
        check(models)
    check(models, [PromptRow("0", "a star", 1, width=16, height=16)])


def test_an_audit_refuses_them_before_a_picture_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="draws 16 x 16 pixels, the base 32 x 32"):
        plan_audit(Audit(base=embedded.NAME, erased=str(save_tiny(tmp_path / "x")), target="star"))
    assert not (tmp_path / "x-audit").exists()
