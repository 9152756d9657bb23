"""Originals and references: who needs one, where it is kept, and what of an interrupted one is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erase.classification.models import ModelSettings
from erase.classification.splits import Splits, make_splits
from erase.config import build
from erase.errors import UserError
from erase.training.checkpoint import latest
from erase.training.interruption import Interrupted
from erase.training.originals import (
    begins_at_random,
    cached_classifier,
    check_cache,
    continued,
    from_checkpoint,
    from_scratch,
    needs_original,
)
from erase.training.unlearning import train_from_scratch
from erase.training.unlearning_settings import UnlearningRun
from tests.launch import at_step
from tests.unit.training.test_unlearning_precision import COMMON

OF_RETRAINING = {"start": {"name": "scratch"}, "batch_norm": "batch", "update": {"name": "retain_only"}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "cache"))


def settings(**given: Any) -> UnlearningRun:
    brief = {"original": {"max_train_steps": 6, "train_batch_size": 8}, "start": {"name": "trained"}}
    return build(UnlearningRun, COMMON | brief | {"output_dir": "run"} | given)


def splits_of(run: UnlearningRun) -> Splits:
    return make_splits(run.data, run.forget, run.split_seed)


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({}, True),
        ({"start": {"name": "trim"}}, True),
        (OF_RETRAINING, False),
        ({"start": {"name": "scratch"}}, False),
        ({"start": {"name": "scratch"}, "forget_loss": {"name": "bad_teacher"}}, False),
        ({"start": {"name": "scratch"}, "retain_loss": {"name": "distillation"}}, True),
        ({"start": {"name": "scratch"}, "forget_loss": {"name": "teacher_divergence"}}, True),
        ({**OF_RETRAINING, "forget_loss": {"name": "teacher_divergence"}}, False),
        ({"start": {"name": "scratch"}, "mask": {"name": "saliency"}}, True),
        ({"update": {"name": "retain_only"}, "learn_from": "all"}, False),
        ({"update": {"name": "retain_only"}, "learn_from": "all", "retain_loss": {"name": "distillation"}}, True),
    ],
)
def test_an_original_is_needed_where_start_mask_or_a_loss_in_use_looks_at_it(
    given: dict[str, Any], needed: bool
) -> None:
    assert needs_original(settings(**given)) is needed


def test_weights_are_drawn_at_random_from_scratch_and_where_nothing_was_learned() -> None:
    assert not begins_at_random(settings())
    assert begins_at_random(settings(**OF_RETRAINING))
    alone = {"update": {"name": "retain_only"}, "learn_from": "all"}
    assert begins_at_random(settings(**alone))
    assert not begins_at_random(settings(**alone, model={**COMMON["model"], "pretrained": True}))


def test_a_cached_original_takes_the_place_of_published_weights() -> None:
    timm = ModelSettings("timm", "test_resnet", "standard", pretrained=True, replace_head=True, revision="a")
    found = from_checkpoint(timm, Path("x"))
    assert found == ModelSettings("timm", "test_resnet", "standard", Path("x"))
    assert not list(found.problems())
    assert from_checkpoint(replace(timm, source="transformers"), Path("x")).revision == "a"


def test_how_a_run_unlearns_and_keeps_checkpoints_is_not_in_the_place_of_its_original() -> None:
    one = settings()
    others = [
        settings(checkpointing_steps=3, checkpoints_total_limit=2, output_dir="other", overwrite=True),
        settings(resume_from_checkpoint="latest", forget_loss={"name": "uniform"}, mask={"name": "saliency"}),
        settings(model={**COMMON["model"], "checkpoint": "x.safetensors"}),
    ]
    splits = splits_of(one)
    for learn_from in ("all", "retain"):
        assert {cached_classifier(run, splits, learn_from) for run in others} == {
            cached_classifier(one, splits, learn_from)
        }
    assert cached_classifier(settings(seed=1), splits, "all") != cached_classifier(one, splits, "all")


def test_what_a_transformers_network_computes_is_in_the_place_of_its_original(tmp_path: Path) -> None:
    file = tmp_path / "net" / "config.json"
    file.parent.mkdir()
    file.write_text('{"hidden_act": "gelu"}')
    run = settings(model={"source": "transformers", "architecture": str(file.parent), "stem": "standard"})
    splits = splits_of(run)
    places = {cached_classifier(run, splits, learn_from) for learn_from in ("all", "retain")}
    file.write_text('{"hidden_act": "relu"}')
    assert places.isdisjoint(cached_classifier(run, splits, learn_from) for learn_from in ("all", "retain"))


def test_what_cannot_be_used_of_an_interrupted_run_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings(checkpointing_steps=2)
    splits = splits_of(run)

    def stop() -> None:
        raise Interrupted("stop", 9)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="run the same command again"):
        at_step(patch, 5, stop)
        train_from_scratch(run, splits, "all")
    recipe = replace(from_scratch(run, "all"), output_dir=cached_classifier(run, splits, "all"), checkpointing_steps=3)
    last = latest(recipe.output_dir)
    assert last is not None and last.name == "checkpoint-4"
    assert continued(recipe, splits) == replace(recipe, resume_from_checkpoint="latest")
    other = settings(forget={"name": "random"})
    assert continued(recipe, splits_of(other)) == recipe
    assert not recipe.output_dir.exists()


@pytest.mark.parametrize("place", ["a_file/cache", "/proc/no/cache"])
def test_a_cache_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / place))
    with pytest.raises(UserError, match=r"ERASE_CACHE: .* cannot be made: .*; set the environment's ERASE_CACHE"):
        run = settings()
        check_cache(cached_classifier(run, splits_of(run), "all"))


def test_an_original_serves_every_forget_set_and_a_reference_only_its_own() -> None:
    """But for flipped labels, which the original learns."""
    one, two, flipped = (
        settings(forget=forget)
        for forget in ({"name": "classes", "labels": [8]}, {"name": "random"}, {"name": "flipped"})
    )
    places = {
        part: [cached_classifier(run, splits_of(run), part) for run in (one, two, flipped)]
        for part in ("all", "retain")
    }
    assert places["all"][0] == places["all"][1] != places["all"][2]
    assert len(set(places["retain"])) == 3


def test_an_original_of_other_published_weights_has_another_place(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    model = {"source": "transformers", "architecture": str(folder), "pretrained": True}
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    run = settings(model=model)
    splits, places = splits_of(run), set()
    for weights in (b"one", b"two"):
        (folder / "model.safetensors").write_bytes(weights)
        places.add(cached_classifier(run, splits, "all"))
    assert len(places) == 2
