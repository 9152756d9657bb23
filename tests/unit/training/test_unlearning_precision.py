"""What of speed and memory a classifier's run takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from erase.config import build
from erase.errors import UserError
from erase.training.launch import launcher_problems
from erase.training.step_log import read_log
from erase.training.unlearning import flat_at_start, unlearn
from erase.training.unlearning_settings import UnlearningRun, check_unlearning

COMMON: dict[str, Any] = {
    "task": "classification",
    "data": {"name": "digits"},
    "forget": {"name": "classes", "labels": [8]},
    "model": {"source": "timm", "architecture": "test_resnet", "stem": "standard"},
    "start": {"name": "scratch"},
    "train_batch_size": 8,
    "max_train_steps": 3,
}

TAUGHT: dict[str, Any] = {
    "retain_loss": {"name": "distillation", "gamma": 0.0, "alpha": 1.0},
    "forget_loss": {"name": "bad_teacher"},
}


def settings(folder: Path, **given: Any) -> UnlearningRun:
    return build(UnlearningRun, COMMON | {"output_dir": folder / "run"} | given)


def test_fp16_and_the_average_serve_classifiers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "cache"))
    brief = {"max_train_steps": 2, "train_batch_size": 8}
    unlearn(settings(tmp_path, mixed_precision="fp16", ema_decay=0.9, start={"name": "trained"}, original=brief))
    log = read_log(tmp_path / "run")
    assert [line["loss_scale"] for line in log] == [2.0**16] * 3
    assert (tmp_path / "run" / "checkpoint-3" / "average.safetensors").is_file()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"compile": True}, "compile: is for diffusion models"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: is for diffusion models"),
        (
            {"batch_norm": "batch", "gradient_accumulation_steps": 2},
            "accumulation_steps: 2 would split; use 1",
        ),
        ({"mask": {"name": "fisher_ratio"}, "update": {"name": "retain_only"}}, "mask.name: fisher_ratio masks"),
        ({"ema_decay": 0.9, "batch_norm": "batch"}, "ema_decay: batch_norm batch keeps statistics"),
        ({"mixed_precision": "fp16", "mask": {"name": "saliency"}}, "mixed_precision: mask.name saliency"),
        ({"mixed_precision": "fp16", "forget_loss": {"name": "boundary_shrink"}}, "forget_loss.name boundary_shrink"),
        ({"mixed_precision": "fp16", "start": {"name": "influence_unlearning"}}, "start.name influence_unlearning"),
    ],
    ids=["compile", "checkpointing", "accumulation", "forget mask", "average", "mask", "boundary", "start"],
)
def test_what_does_not_go_with_a_classifier_is_refused(tmp_path: Path, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        check_unlearning(settings(tmp_path, **given))


@pytest.mark.parametrize(
    "given",
    [
        {"forget_loss": {"name": "boundary_expand"}},
        {"forget_loss": {"name": "boundary_shrink"}, "update": {"name": "retain_only"}},
    ],
    ids=["no gradient of its own", "never looked at"],
)
def test_fp16_takes_what_has_no_gradients_of_its_own(tmp_path: Path, given: dict[str, Any]) -> None:
    check_unlearning(settings(tmp_path, mixed_precision="fp16", **given))


def test_a_classifier_is_not_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(UserError, match="task: classification is not spread over processes by FSDP"):
        check_unlearning(settings(tmp_path))


def test_no_input_of_a_classifier_s_run_lies_where_overwrite_removes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("steps.jsonl", "forget.txt", "mask.safetensors"):
        (folder / name).touch()
    given: dict[str, Any] = {"forget": {"name": "listed", "file": folder / "forget.txt"}, "overwrite": True}
    given |= {"mask": {"name": "saliency", "file": folder / "mask.safetensors"}}
    given |= {"data": {"name": "folder", "path": folder, "size": 8}, "resume_from_checkpoint": None}
    with pytest.raises(UserError) as refused:
        check_unlearning(settings(tmp_path, **given))
    assert [p.split(":")[0] for p in refused.value.problems] == ["data.path", "forget.file", "mask.file"]


@pytest.mark.parametrize(
    ("given", "normalises", "flat"),
    [
        ({}, True, "forget_loss.name: teacher_divergence"),
        ({"batch_norm": "batch"}, True, None),
        ({"batch_norm": "batch"}, False, "forget_loss.name: teacher_divergence"),
        ({"adam_weight_decay": 0.01}, True, None),
        ({"start": {"name": "trim"}}, True, None),
        ({"update": {"name": "alternating_steps"}}, True, None),
        ({"update": {"name": "mgda"}}, True, "forget_loss.name: teacher_divergence"),
        ({"update": {"name": "alternating_steps", "rule": "mgda"}}, True, None),
        ({"forget_loss": {"name": "uniform"}}, True, None),
        (TAUGHT | {"update": {"name": "mgda"}}, True, "retain_loss.gamma: distillation with 0"),
        (
            TAUGHT | {"update": {"name": "alternating_steps", "rule": "mgda"}},
            True,
            "retain_loss.gamma: distillation with 0",
        ),
        (TAUGHT | {"update": {"name": "lur"}}, True, None),
        (TAUGHT | {"update": {"name": "mgda"}, "retain_loss": {"name": "distillation"}}, True, None),
    ],
    ids=[
        *("same statistics", "a batch's", "none to differ in", "decay", "another start", "retains", "shortest"),
        *("shortest, retains", "another loss", "taught", "taught, retains", "taught, not shortest", "by labels too"),
    ],
)
def test_a_loss_from_the_original_flat_at_start_where_nothing_else_moves_it(
    tmp_path: Path, given: dict[str, Any], normalises: bool, flat: str | None
) -> None:
    alone = {"update": {"name": "forget_only"}, "forget_loss": {"name": "teacher_divergence"}}
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2) if normalises else nn.ReLU())
    assert flat_at_start(settings(tmp_path, **{"start": {"name": "trained"}} | alone | given), network) == flat


@pytest.mark.parametrize(
    ("variable", "told", "given", "said"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", {}, "mixed_precision: found no, and bf16 by accelerate"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", {}, "gradient_accumulation_steps: found 1, and 4 by accel"),
        ("ACCELERATE_USE_DEEPSPEED", "true", {}, "deepspeed: found true in accelerate's config"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", {}, "megatron_lm: found true in accelerate's config"),
        ("ACCELERATE_DYNAMO_BACKEND", "inductor", {}, "dynamo_backend: found inductor in accelerate's config"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO", {}, None),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", {}, "fsdp_activation_checkpointing: found true in accelerate's"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", {"mixed_precision": "bf16"}, None),
        ("ACCELERATE_MIXED_PRECISION", "no", {"mixed_precision": "bf16"}, None),
    ],
)
def test_what_the_launcher_was_told_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, told: str, given: dict[str, Any], said: str | None
) -> None:
    monkeypatch.setenv(variable, told)
    found = list(launcher_problems(settings(tmp_path, **given)))
    assert found == [] if said is None else found[0].startswith(said)


def test_an_original_follows_its_recipe_whatever_the_launcher_was_told_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    brief = {"max_train_steps": 2, "train_batch_size": 8}
    given = {"mixed_precision": "fp16", "gradient_accumulation_steps": 2}
    given |= {"start": {"name": "trained"}, "update": {"name": "retain_only"}}
    unlearn(settings(tmp_path, original=brief, **given))
    assert len(read_log(tmp_path / "run")) == 3
    with pytest.raises(UserError, match="mixed_precision: found no, and fp16 by accelerate"):
        unlearn(settings(tmp_path, overwrite=True))
