"""A LoRA run: an adapter that plain `load_lora_weights` loads, and the same thing merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from erase.parameters import LoRA
from tests.launch import pictures, train, unet
from tests.tiny import save_tiny, write_config

TOLERANCE = 1e-4
"""Of pixels from 0 to 1. Merged weights are rounded once more: 6e-8 a product, over 3 steps of guidance 4."""
ADAPTER = "pytorch_lora_weights.safetensors"
LINE = "{name: lora, rank: 2, alpha: 8, target_modules: [to_q, to_k, to_v, to_out.0]}"
"""A scale alpha / rank of 4: one that is forgotten on the way shows."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    config = write_config(folder, model, parameters=LINE, save_merged="true", learning_rate="2.0e-2")
    assert train(config) == 0
    return folder / "run"


def with_adapter(model: Path, run: Path) -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.load_lora_weights(run, weight_name=ADAPTER)
    return pipeline


def test_the_run_s_folder_holds_the_adapter_and_no_pipeline_but_in_merged(run: Path) -> None:
    assert (run / ADAPTER).is_file()
    assert not (run / "model_index.json").exists()
    assert (run / "merged" / "model_index.json").exists()
    assert all(name.startswith("unet.") for name in load_file(run / ADAPTER))


def test_adapter_and_merged_folder_draw_the_same_pictures(model: Path, run: Path) -> None:
    base = pictures(StableDiffusionPipeline.from_pretrained(model))
    merged = pictures(StableDiffusionPipeline.from_pretrained(run / "merged"))
    adapted = pictures(with_adapter(model, run))
    assert (adapted - merged).abs().max() < TOLERANCE
    assert (adapted - base).abs().max() > 10 * TOLERANCE


def test_adapter_draws_what_the_trained_weights_drew(model: Path, run: Path) -> None:
    """The trained weights are those of the last checkpoint, put back into the adapter that training made."""
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    trainable = LoRA(rank=2, alpha=8.0).select(pipeline.unet)
    trained = load_file(run / "checkpoint-4" / "trainable.safetensors")
    assert trained.keys() == trainable.keys()
    with torch.no_grad():
        for name, p in trainable.items():
            p.copy_(trained[name])
    assert (pictures(with_adapter(model, run)) - pictures(pipeline)).abs().max() < TOLERANCE


def test_merging_moves_the_layers_with_an_adapter_only(model: Path, run: Path) -> None:
    before, after = unet(model), unet(run / "merged")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    layers = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    assert moved == {name for name in before if name.endswith(layers)}


def test_without_save_merged_there_is_no_merged_folder(model: Path, tmp_path: Path) -> None:
    assert train(write_config(tmp_path, model, parameters=LINE)) == 0
    assert (tmp_path / "run" / ADAPTER).is_file()
    assert not (tmp_path / "run" / "merged").exists()
