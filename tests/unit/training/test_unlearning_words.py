"""Pages name the method that ran, not the part of it that two methods share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erase.config import build, load
from erase.training.unlearning_settings import UnlearningRun
from erase.training.unlearning_words import forgotten, method
from tests.launch import ROOT

CONFIGS = ROOT / "configs" / "classification"
METHODS = {
    "digits_retrain": "scratch + retain only (cross entropy)",
    "digits_finetune": "retain only (cross entropy)",
    "digits_gradient_ascent": "forget only (gradient ascent)",
    "digits_selective_dampening": "selective dampening",
    "digits_influence_unlearning": "influence unlearning",
    "digits_salun": "alternating steps (random label, cross entropy; saliency mask)",
    "digits_random_label": "alternating steps (random label, cross entropy)",
    "digits_scrub": "alternating steps (teacher divergence, distillation)",
    "digits_sfron": "alternating steps (adaptive ascent, cross entropy; fisher ratio mask)",
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_named_by_its_start_rule_losses_and_mask(name: str) -> None:
    assert method(load(UnlearningRun, CONFIGS / f"{name}.yaml")) == METHODS[name]


def test_two_names_are_alike_only_where_start_rule_losses_and_mask_are() -> None:
    runs = [load(UnlearningRun, file) for file in sorted(CONFIGS.glob("*.yaml"))]
    kinds = {
        method(run): {
            (other.start.name, other.mask.name, other.update.name, other.retain_loss.name)
            for other in runs
            if method(other) == method(run)
        }
        for run in runs
    }
    assert len(kinds) > 12
    assert [kind for kind in kinds.values() if len(kind) > 1] == []


def run(**given: Any) -> UnlearningRun:
    common = {"task": "classification", "data": {"name": "digits"}, "forget": {"name": "random"}, "output_dir": "x"}
    return build(UnlearningRun, common | given)


def test_lur_is_named_with_its_mode_its_start_and_what_takes_the_place_of_its_sum() -> None:
    assert method(run(start={"name": "trim"})) == "trim + LUR chained (gradient ascent, cross entropy)"
    found = method(run(update={"name": "lur", "mode": "first_order", "combine": "nash"}))
    assert found == "LUR first order with nash (gradient ascent, cross entropy)"
    assert method(run(max_train_steps=0)) == "no step"


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        ({"name": "classes", "labels": ["ring", "moon"]}, "class ring, moon"),
        ({"name": "random", "fraction": 0.05}, "5 % of the training samples"),
        ({"name": "flipped", "fraction": 0.1}, "10 % wrong labels"),
        ({"name": "listed", "file": str(Path("a.txt"))}, "samples of a list"),
    ],
)
def test_what_is_forgotten_is_told(forget: dict[str, Any], words: str) -> None:
    assert forgotten(run(forget=forget)) == words
