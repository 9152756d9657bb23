"""`--help`: every key of a command stands there with its meaning, range and default."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from erase.command_help import describe_settings
from erase.demo import Demo
from erase.evaluation.audit_settings import Audit
from erase.evaluation.metrics import METRICS
from erase.generation.settings import Generation
from erase.publication.settings import Publication
from erase.training.erasure import ErasureRun
from erase.training.unlearning_settings import UnlearningRun

HELP = describe_settings("train", ErasureRun, ("dry_run",)).splitlines()
MEANINGS = [line for line in HELP if line.startswith("  --") and line not in ("  --dry_run", "  --config  path")]
COMMANDS: dict[str, type] = {
    "audit": Audit,
    "demo": Demo,
    "generate": Generation,
    "publish": Publication,
    "train --task classification": UnlearningRun,
}
"""The commands beside `erase train`, which the other tests look at."""


def blocks(annotation: Any) -> Iterator[tuple[type, str]]:
    """The dataclasses in a field's type, and what stands between its key and theirs: lists have an index."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        yield annotation, ""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from blocks(inside[0])
    if origin in (typing.Union, types.UnionType):
        for part in inside:
            yield from blocks(part)
    if origin is tuple:
        for cls, _ in blocks(inside[0]):
            yield cls, "0."


def keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Every key of the settings, read from the classes themselves and not from their schema."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        yield f"{prefix}{field.name}"
        for inner, index in blocks(hints[field.name]):
            yield from keys(inner, f"{prefix}{field.name}.{index}")


def test_the_scale_of_clip_scores_says_where_it_is_not_that_of_its_authors() -> None:
    assert "without the prefix that their code adds" in " ".join(describe_settings("audit", Audit, ()).split())


def described(key: str) -> list[str]:
    return [line for line in HELP if line.startswith(f"  --{key}  ")]


def entry(key: str) -> str:
    (line,) = described(key)
    return line.removeprefix(f"  --{key}  ")


def test_the_keys_are_found_in_the_classes() -> None:
    found = set(keys(ErasureRun))
    assert {"targets.0.concept", "update.alpha.value", "forget_loss.eta", "parameters.rank", "retain.images"} < found
    assert len(found) > 60


@pytest.mark.parametrize("key", sorted({key for key in keys(ErasureRun) if not key.endswith(".name")}))
def test_every_key_is_listed_with_a_meaning(key: str) -> None:
    assert len(described(key)) >= 1
    for index, line in enumerate(HELP):
        if line.startswith(f"  --{key}  "):
            assert HELP[index + 1].startswith(" " * 8) and HELP[index + 1].strip(), f"{key} has no meaning"


def test_nothing_else_is_listed() -> None:
    assert {line.split()[0].removeprefix("--") for line in MEANINGS} <= set(keys(ErasureRun))


def test_every_choice_is_listed_with_what_it_is() -> None:
    for key, names in {
        "update": ("lur", "weighted_sum"),
        "update.alpha": ("absolute", "correction", "displacement"),
        "forget_loss": ("negative_guidance", "anchor_redirection"),
        "retain_loss": ("teacher_distillation", "denoising"),
        "parameters": ("full", "cross_attention", "cross_attention_kv", "not_cross_attention", "lora"),
    }.items():
        assert entry(key).startswith("choice: ")
        for name in names:
            assert name in entry(key)
            (line,) = [line for line in HELP if line.startswith(f"    {key}.name={name}: ")]
            assert len(line) > len(f"    {key}.name={name}: ") + 10


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("seed", "integer >= 0, default 0"),
        ("learning_rate", "number > 0, default 1e-05"),
        ("adam_beta1", "number >= 0 < 1, default 0.9"),
        ("latents.steps", "integer >= 1 <= 1000, default 10"),
        ("mixed_precision", 'no | fp16 | bf16, default "no"'),
        ("output_dir", "path, must be given"),
        ("targets", "list, must be given"),
        ("targets.0.concept", "string, must be given"),
        ("revision", "string or none, default null"),
        ("overwrite", "boolean, default false"),
        ("retain", "block, default as below"),
        ("update.mode", 'chained | exact | alternating | first_order, default "chained"'),
        ("checkpoints_total_limit", "integer >= 1 or none, default null"),
    ],
)
def test_a_key_shows_its_kind_its_range_and_its_default(key: str, expected: str) -> None:
    assert entry(key) == expected


def test_the_head_says_how_to_call_the_command_and_lists_its_flags() -> None:
    assert HELP[0] == "erase train --config FILE [--KEY VALUE ...]"
    assert "  --dry_run" in HELP
    assert "  --dry_run" not in describe_settings("train", ErasureRun, ()).splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_other_command_lists_every_key_with_a_meaning_and_nothing_else(name: str) -> None:
    lines = describe_settings(name, COMMANDS[name], ()).splitlines()
    places = [i for i, line in enumerate(lines) if line.startswith("  --") and line != "  --config  path"]
    listed = {lines[i].split()[0].removeprefix("--") for i in places}
    known = set(keys(COMMANDS[name]))
    assert {key for key in known if not key.endswith(".name")} <= listed <= known
    assert [lines[i] for i in places if not lines[i + 1].startswith(" " * 8)] == []


def test_every_metric_is_listed_with_its_fields() -> None:
    lines = describe_settings("audit", Audit, ()).splitlines()
    for name in METRICS:
        assert sum(line.startswith(f"    metrics.0.name={name}: ") for line in lines) == 1
    assert "  --metrics.0.features.normalize  boolean or none, default null" in lines
    assert not any(line.startswith("  --metrics.0.features ") and "null" in line for line in lines)


def test_the_head_tells_what_config_and_flags_mean_and_where_else_to_look() -> None:
    head = describe_settings("train", ErasureRun, ("dry_run",), "a file", "See also that.").split("\n\n")
    assert head[1].endswith("\nSee also that.")
    assert "  --config  path\n        a file\n  --dry_run\n        checks everything" in head[2]
