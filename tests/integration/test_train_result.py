"""What a run leaves in its folder: a pipeline that plain diffusers loads, changed in the chosen weights only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from tests.launch import listing, pictures, train, unet
from tests.properties import assert_finite, assert_same_bits
from tests.tiny import save_tiny, write_config

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
KEPT_BY_ESD_U = ("conv_out.", "conv_norm_out.", "time_embedding.")
CHOSEN: dict[str, Callable[[str], bool]] = {
    "full": bool,
    "cross_attention": lambda name: ".attn2." in name,
    "cross_attention_kv": lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name,
    "not_cross_attention": lambda name: ".attn2." not in name and not name.startswith(KEPT_BY_ESD_U),
}
"""Each way to choose weights, and the names that it may change."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def erased(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erased")
    assert train(write_config(folder, model), "--parameters.name", "full") == 0
    return folder / "run"


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [value for _, value in sorted(module.state_dict().items())]


def test_plain_diffusers_loads_it_and_only_the_unet_differs(model: Path, erased: Path) -> None:
    before, after = (StableDiffusionPipeline.from_pretrained(folder) for folder in (model, erased))
    assert_same_bits(weights(before.vae), weights(after.vae))
    assert_same_bits(weights(before.text_encoder), weights(after.text_encoder))
    assert dict(before.scheduler.config) == dict(after.scheduler.config)
    assert before.tokenizer.get_vocab() == after.tokenizer.get_vocab()
    assert after.unet.config.block_out_channels == before.unet.config.block_out_channels
    assert any(not torch.equal(a, b) for a, b in zip(weights(before.unet), weights(after.unet), strict=True))


def test_its_pictures_are_others_than_the_base_s(model: Path, erased: Path) -> None:
    before, after = (pictures(StableDiffusionPipeline.from_pretrained(folder)) for folder in (model, erased))
    assert_finite([after])
    assert (after - before).abs().max() > 1e-3


def test_the_base_s_folder_is_left_as_it_was(model: Path, tmp_path: Path) -> None:
    before = listing(model)
    assert train(write_config(tmp_path, model)) == 0
    assert listing(model) == before


@pytest.mark.parametrize("name", CHOSEN)
def test_weights_that_were_not_chosen_are_bit_identical(model: Path, tmp_path: Path, name: str) -> None:
    config = write_config(tmp_path, model)
    assert train(config, "--parameters.name", name, "--adam_weight_decay", "0.1") == 0
    before, after = unet(model), unet(tmp_path / "run")
    assert before.keys() == after.keys()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    chosen = {key for key in before if CHOSEN[name](key)}
    assert moved <= chosen
    still = chosen - moved
    assert len(moved) > 0.9 * len(chosen), f"chosen, but did not move: {sorted(still)}"


@pytest.mark.parametrize("name", ["full", "lora"])
def test_there_is_no_pickle_anywhere(model: Path, tmp_path: Path, name: str) -> None:
    merged = ["--save_merged"] if name == "lora" else []
    assert train(write_config(tmp_path, model), "--parameters.name", name, *merged) == 0
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".safetensors", ".json", ".jsonl", ".yaml"}
    assert [file for file in files if file.suffix in PICKLES] == []


def test_nothing_half_written_stays_behind(model: Path, tmp_path: Path) -> None:
    assert train(write_config(tmp_path, model)) == 0
    assert [path for path in tmp_path.rglob("*") if ".tmp" in path.name or path.name == "result"] == []


def test_old_checkpoints_beyond_the_limit_are_removed(model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, model, checkpointing_steps="1", checkpoints_total_limit="2")
    assert train(config) == 0
    assert sorted(folder.name for folder in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


def test_overwrite_replaces_an_earlier_run_entirely(model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, model)
    assert train(config) == 0
    assert train(config, "--overwrite", "--checkpointing_steps", "100") == 0
    assert [folder.name for folder in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-4"]
    assert (tmp_path / "run" / "model_index.json").exists()
