"""Models as others ship them go through `erase generate` and `erase audit` like a run's own folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from erase import embedded
from erase.audit import main as audit
from erase.generate import main as generate
from erase.generation.folder import open_folder
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import vocabulary_set
from erase.publication.formats import write_format
from tests.generation import arguments, content, one_thread, settings, write_set

ROWS = vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=3)[::20]


@pytest.fixture(scope="module")
def shipped(model: Path, place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run, its formats, and its UNet's difference as ESD writes it: diffusers' names and nothing else."""
    folder, run = tmp_path_factory.mktemp("shipped"), place / "run"
    before, after = (StableDiffusionPipeline.from_pretrained(f).unet.state_dict() for f in (model, run))
    changed = {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    save_file(changed, folder / "esd.safetensors")
    ours = {name: write_format(run, name, folder / name)[0] for name in ("delta", "unet")}
    return {"run": run, "esd": folder / "esd.safetensors", "unet folder": run / "unet", **ours}


def hashes(folder: Path) -> dict[str, str]:
    return {name: value for name, value in content(folder).items() if name.endswith(".png")}


@pytest.mark.parametrize("name", ["esd", "delta", "unet", "unet folder"])
def test_generate_draws_the_runs_pictures_from_any_of_its_forms(
    model: Path, shipped: dict[str, Path], tmp_path: Path, name: str
) -> None:
    one_thread()
    file = write_set(tmp_path, 4)
    assert generate(arguments(settings(shipped["run"], file, tmp_path / "whole"))) == 0
    assert generate([*arguments(settings(model, file, tmp_path / "put")), "--lora", str(shipped[name])]) == 0
    assert generate(arguments(settings(model, file, tmp_path / "base"))) == 0
    assert hashes(tmp_path / "put") == hashes(tmp_path / "whole")
    assert hashes(tmp_path / "put").items().isdisjoint(hashes(tmp_path / "base").items())
    header = json.loads((tmp_path / "put" / "generation.json").read_text())
    assert header["lora"]["name"] == str(shipped[name])


def test_weights_given_as_a_whole_model_are_refused_with_the_way_to_give_them(
    shipped: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(shipped["esd"], write_set(tmp_path), tmp_path / "out")
    assert generate(arguments(given)) == 2
    assert "holds weights and no whole model; give it as `lora`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_with_code_of_its_own_is_not_generated_from(
    shipped: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_format(shipped["run"], "diffusers", tmp_path / "model")
    (tmp_path / "model" / "pipeline.py").write_text("raise SystemExit('run')")
    assert generate(arguments(settings(tmp_path / "model", write_set(tmp_path), tmp_path / "out"))) == 2
    assert "pipeline.py is code of the model's own" in capsys.readouterr().err


def test_a_delta_is_audited_as_the_run_it_was_made_from(model: Path, shipped: dict[str, Path], tmp_path: Path) -> None:
    one_thread()
    write_prompt_set(ROWS, tmp_path / "set.csv")
    given = {"base": model, "target": "star", "prompts": tmp_path / "set.csv", "base_images": tmp_path / "base"}
    given |= {"num_inference_steps": 1, "guidance_scale": 2, "batch_size": 16}
    fixed = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    fixed += ["--metrics", "[{name: concept_classifier}, {name: clip_score, model: shapes}]"]
    for name in ("run", "esd"):
        assert audit([*fixed, "--erased", str(shipped[name]), "--output_dir", str(tmp_path / name)]) == 0
    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "esd")}
    assert results["run"]["effects"] == results["esd"]["effects"]
    assert results["esd"]["erased"]["lora"]["name"] == str(shipped["esd"])
    drawn = [{p.sha256 for p in open_folder(tmp_path / n / "images" / "erased").pictures} for n in ("run", "esd")]
    assert drawn[0] == drawn[1]
    assert drawn[0].isdisjoint(p.sha256 for p in open_folder(tmp_path / "base").pictures)
