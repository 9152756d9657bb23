"""A LoRA run as a repository: the adapter at the root, other formats below, the base by its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import metadata_load

from erase.publish import main
from tests.launch import pictures, train
from tests.tiny import save_tiny, write_config

LINE = "{name: lora, rank: 2, alpha: 8, target_modules: [to_q, to_k, to_v, to_out.0]}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("base") / "model")
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\n# A tiny model\n")
    return folder


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run, and the repository made of it."""
    folder = tmp_path_factory.mktemp("lora")
    assert train(write_config(folder, model, parameters=LINE, learning_rate="2.0e-2")) == 0
    words = ["--repo_id", "me/star-lora", "--formats", "[kohya, diffusers]", "--local_dir", str(folder / "out")]
    assert main([str(folder / "run"), *words]) == 0
    return folder / "run", folder / "out"


def test_the_adapter_lies_at_the_root_and_draws_what_the_run_s_own_draws(
    written: tuple[Path, Path], model: Path
) -> None:
    drawn = []
    for folder in written:
        pipeline = StableDiffusionPipeline.from_pretrained(model)
        pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
        drawn.append(pictures(pipeline))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], pictures(StableDiffusionPipeline.from_pretrained(model)))


def test_other_formats_lie_below_and_the_root_is_no_pipeline(written: tuple[Path, Path]) -> None:
    _, out = written
    assert (out / "formats" / "diffusers" / "model_index.json").is_file() and not (out / "model_index.json").exists()
    assert len(list((out / "formats" / "kohya").glob("*.safetensors"))) == 1


def test_the_card_says_that_it_is_an_adapter_and_whose_licence_holds(written: tuple[Path, Path]) -> None:
    _, out = written
    data, text = metadata_load(out / "README.md"), (out / "README.md").read_text()
    assert data is not None and data["license"] == "openrail++" and "lora" in data["tags"]
    assert "pipeline.load_lora_weights('me/star-lora')" in text and "formats/kohya/" in text


def test_the_provenance_lists_each_file_by_its_hash(written: tuple[Path, Path]) -> None:
    _, out = written
    listed = json.loads((out / "provenance.json").read_text())["published"]
    there = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert set(listed["files"]) == there - {"provenance.json"} and listed["formats"] == ["lora", "kohya", "diffusers"]
