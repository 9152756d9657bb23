"""The closed table of metrics: names, settings, lazy models, identities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, TypeAdapter
from pydantic.fields import FieldInfo
from safetensors.torch import save_file
from torchvision.models import resnet50

from erase.config import build, dump
from erase.errors import UserError
from erase.evaluation.metrics import (
    CMMD,
    IMAGE_METRICS,
    METRICS,
    PAIR_METRICS,
    SET_METRICS,
    AnyMetric,
    Nudity,
)
from erase.evaluation.metrics.classifier_model import load_classifier
from erase.evaluation.metrics.clip_model import load_clip
from erase.evaluation.metrics.features import FEATURES, InceptionFeatures
from erase.evaluation.metrics.imagenet import load_resnet50
from erase.evaluation.metrics.lpips import load_lpips
from erase.generation.prompts import PromptRow

NEEDED: dict[str, dict[str, Any]] = {
    "zero_shot": {"concepts": {"object": ["star", "ring"]}},
    "clip_accuracy": {"target": "a star", "anchor": "a ring"},
    "lpips": {"net": "vgg"},
}
"""What a metric cannot do without."""


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_selected_by_its_name_and_read_back(name: str) -> None:
    metric = build(METRICS[name], {"name": name} | NEEDED.get(name, {}))
    assert metric.name == name
    assert build(METRICS[name], dump(metric)) == metric


@pytest.mark.parametrize("name", METRICS)
def test_each_setting_says_what_it_means(name: str) -> None:
    fields: dict[str, FieldInfo] = METRICS[name].__pydantic_fields__
    assert [key for key, field in fields.items() if key != "name" and not field.description] == []


@pytest.mark.parametrize("name", METRICS)
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="unknown key"):
        build(METRICS[name], {"treshold": 1} | NEEDED.get(name, {}))


def test_the_tables_hold_every_metric_once() -> None:
    assert list(METRICS) == [*IMAGE_METRICS, *PAIR_METRICS, *SET_METRICS]
    assert set(FEATURES) == {"clip", "inception"} and FEATURES["inception"] is InceptionFeatures
    assert METRICS["cmmd"] is CMMD and METRICS["nudity"] is Nudity


def test_the_union_is_told_apart_by_name() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(list[Annotated[AnyMetric, Field(discriminator="name")]])
    found = adapter.validate_python([{"name": "clip_score", "model": "shapes"}, {"name": "kid"}])
    assert [type(metric).__name__ for metric in found] == ["ClipScore", "KID"]


def test_the_offline_metrics_know_their_identity_in_json() -> None:
    for name in ("clip_score", "zero_shot", "clip_accuracy", "clip_distance"):
        identity = build(METRICS[name], {"model": "shapes"} | NEEDED.get(name, {})).identity()
        assert identity["metric"] == name and identity["version"] and identity["weights_sha256"]
        json.dumps(identity)
    for name in ("fid", "kid", "cmmd"):
        identity = build(METRICS[name], {"features": {"name": "clip", "model": "shapes"}}).identity()
        assert identity["metric"] == name and identity["extractor"]["weights_sha256"]
        json.dumps(identity)


def test_making_every_metric_loads_no_model() -> None:
    loaders = (load_clip, load_classifier, load_resnet50, load_lpips)
    for loader in loaders:
        loader.cache_clear()
    for name, kind in METRICS.items():
        build(kind, NEEDED.get(name, {}))
    assert [loader.cache_info().currsize for loader in loaders] == [0] * 4
    assert build(METRICS["clip_score"], {"model": "shapes"}).identity()
    assert [loader.cache_info().currsize for loader in loaders] == [1, 0, 0, 0]


CLIP = ("clip_score", "clip_accuracy", "zero_shot")
ROWS = [PromptRow("0", "a star", 0, concepts={"object": "star"}), PromptRow("1", "a ring", 1)]


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_each_metric_of_images_checks_rows_of_prompts_before_there_are_images(name: str, tmp_path: Path) -> None:
    settings = NEEDED.get(name, {}) | ({"model": "shapes"} if name in CLIP else {})
    if name == "imagenet_classifier":
        save_file(resnet50().state_dict(), tmp_path / "resnet50.safetensors")
        settings = {"model": str(tmp_path / "resnet50.safetensors"), "labels": {"object": {"star": ["starfish"]}}}
    if name == "nudity":
        pytest.importorskip("nudenet", reason="the extra `nudity` is not installed")
    build(IMAGE_METRICS[name], settings).check(ROWS)
    if name in ("zero_shot", "concept_classifier", "imagenet_classifier"):
        with pytest.raises(UserError, match=f"{name}: prompts ask for the object 'hexagon'"):
            build(IMAGE_METRICS[name], settings).check([replace(ROWS[0], concepts={"object": "hexagon"})])


@pytest.mark.parametrize("name", CLIP)
def test_a_clip_model_that_cannot_be_had_is_refused_before_it_is_loaded(name: str) -> None:
    with pytest.raises(UserError, match=r"ViT-B-32 has no tag 'opnai'; known: openai"):
        build(IMAGE_METRICS[name], {"pretrained": "opnai"} | NEEDED.get(name, {})).check(ROWS)


def test_the_fewest_images_of_each_distance_are_known() -> None:
    shapes = {"features": {"name": "clip", "model": "shapes"}}
    found = {name: build(kind, shapes).fewest() for name, kind in SET_METRICS.items()}
    assert found == {"fid": 73, "kid": 20, "cmmd": 20}
