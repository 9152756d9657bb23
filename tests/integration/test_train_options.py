"""Losses, targets and precision, each in a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from erase.provenance import hash_json
from erase.training.step_log import read_log
from tests.launch import SGD, largest_difference, rounding, train, unet
from tests.properties import assert_finite, assert_same_bits
from tests.tiny import draw_captioned, save_tiny, write_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


def test_a_run_in_bf16_keeps_its_weights_in_float32(model: Path, tmp_path: Path) -> None:
    """A run in float32 first, in the same process: the precision of one run is not the next one's."""
    config = write_config(tmp_path, model)
    assert train(config, "--output_dir", str(tmp_path / "float32")) == 0
    assert train(config, "--output_dir", str(tmp_path / "bf16"), "--mixed_precision", "bf16") == 0
    weights = unet(tmp_path / "bf16")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert_finite(weights.values())
    full, half = (read_log(tmp_path / name)[0]["forget_loss"] for name in ("float32", "bf16"))
    assert half != full
    assert half == pytest.approx(full, rel=0.5), "bf16 keeps 8 bits; the loss is a difference of predictions"


@pytest.mark.parametrize(
    ("changed", "arguments"),
    [
        ("gradient checkpointing", ["--train_batch_size", "4", "--gradient_checkpointing"]),
        ("two micro-batches instead of one batch", ["--gradient_accumulation_steps", "2"]),
    ],
)
def test_the_same_weights_within_rounding_by(model: Path, tmp_path: Path, changed: str, arguments: list[str]) -> None:
    config = write_config(tmp_path, model, **SGD)
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert train(config, "--output_dir", str(plain), "--train_batch_size", "4") == 0
    assert train(config, "--output_dir", str(other), *arguments) == 0
    assert largest_difference(model, plain) > 1e-3
    assert largest_difference(plain, other) <= rounding(model, plain), changed


def test_two_targets_are_erased_together(model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, model, targets="[{concept: star}, {concept: red, weight: 0.5}]")
    assert train(config) == 0
    made = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert made["erased"] == ["star", "red"]
    assert [target["weight"] for target in made["config"]["targets"]] == [1.0, 0.5]
    equal = write_config(tmp_path, model, targets="[{concept: star}, {concept: red}]")
    assert train(equal, "--output_dir", str(tmp_path / "equal")) == 0
    assert largest_difference(tmp_path / "run", tmp_path / "equal") > 0


def test_weights_of_all_targets_are_a_weight_of_the_forget_loss(model: Path, tmp_path: Path) -> None:
    """Powers of two scale exactly. The log shows the forget loss without forget_weight, but with the targets'."""
    ones = write_config(tmp_path, model, targets="[{concept: star}, {concept: red}]", forget_weight="2")
    assert train(ones, "--output_dir", str(tmp_path / "ones")) == 0
    line = "[{concept: star, weight: 2}, {concept: red, weight: 2}]"
    assert train(write_config(tmp_path, model, targets=line), "--output_dir", str(tmp_path / "twos")) == 0
    assert_same_bits(unet(tmp_path / "ones").values(), unet(tmp_path / "twos").values())
    ones_log, twos_log = read_log(tmp_path / "ones"), read_log(tmp_path / "twos")
    assert [line["forget_loss"] for line in twos_log] == [2 * line["forget_loss"] for line in ones_log]


def test_anchor_redirection_learns_to_predict_the_anchor(model: Path, tmp_path: Path) -> None:
    """In 40 small steps along the gradient, the forget loss falls to less than two thirds."""
    config = write_config(
        tmp_path,
        model,
        targets="[{concept: star, anchor: circle}]",
        forget_loss="{name: anchor_redirection}",
        update="{name: weighted_sum}",
        forget_weight="10",
        max_train_steps="40",
        train_batch_size="4",
        optimizer="sgd",
        learning_rate="1.0e-2",
        adam_beta1="0.0",
    )
    assert train(config) == 0
    losses = [line["forget_loss"] for line in read_log(tmp_path / "run")]
    assert sum(losses[-10:]) < 2 / 3 * sum(losses[:10])


def test_denoising_retains_by_captioned_images(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    captions = [f"a {color} ring" for color in ("red", "green", "blue")]
    draw_captioned(tmp_path / "images", captions)
    config = write_config(tmp_path, model, retain_loss="{name: denoising}", retain=f"{{images: {tmp_path / 'images'}}}")
    assert train(config) == 0
    made = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert made["prompt_hashes"]["retain"] == hash_json(["", *sorted(captions)])
    assert made["counts"]["latent_evaluations"] == 4 * 2 * 2, "of the forget prompts only"
    first = read_log(tmp_path / "run")[0]
    assert first["retain_loss"] > 0.1, "unlike distillation, it is not 0 before the first step"
