"""Every format of a run, read by the plain library, draws what the run's own pipeline draws."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

import erase
from erase import embedded
from erase.generation.lora import NAME
from erase.provenance import hash_folder, write_json
from erase.publication.formats import FORMATS, available, write_format
from tests.launch import pictures, train
from tests.tiny import write_config

SCALED = "{name: lora, rank: 2, alpha: 8, target_modules: [to_q, to_k, to_v, to_out.0, ff.net.0.proj]}"
"""A scale alpha / rank of 4: one that is forgotten on the way shows."""
RUNS = {
    "full": {"parameters": "{name: full}"},
    "cross_attention": {"parameters": "{name: cross_attention}"},
    "lora": {"parameters": SCALED, "learning_rate": "2.0e-2"},
}
CASES = [(kind, name) for kind in RUNS for name in FORMATS if kind == "lora" or name not in ("lora", "kohya")]
EXACT = {("lora", "lora"), ("lora", "kohya")} | {case for case in CASES if case[0] != "lora"}
"""The same arithmetic on the same bits. A LoRA's other formats have B A added to the weights, which rounds them."""
Written = dict[tuple[str, str], list[Path]]


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of four steps of each kind."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for kind, lines in RUNS.items():
        (folder / kind).mkdir()
        assert train(write_config(folder / kind, model, **lines)) == 0
        found[kind] = folder / kind / "run"
    return found


@pytest.fixture(scope="module")
def written(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Each format of each run, in a folder of its own."""
    folder = tmp_path_factory.mktemp("formats")
    return {(kind, name): write_format(runs[kind], name, folder / kind / name) for kind, name in CASES}


def plain(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)


def own(run: Path, model: Path) -> Any:
    """The run's own pipeline, as the plain library reads what training left."""
    if (run / "model_index.json").exists():
        return plain(run)
    pipeline = plain(model)
    pipeline.load_lora_weights(run, weight_name=NAME)
    return pipeline


def read_plainly(name: str, files: list[Path], model: Path) -> Any:
    """A format as people read it who have diffusers and safetensors alone."""
    if name == "diffusers":
        return plain(files[0].parent)
    pipeline, (file,) = plain(model), files
    if name in ("lora", "kohya"):
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
    else:
        pipeline.unet.load_state_dict(load_file(file), strict=name == "unet")
    return pipeline


def rounding(pipeline: Any) -> float:
    """How far pixels move if every weight of the UNet moves to a neighbouring float, at random up or down.

    B A added to a weight rounds it once, by half that at most; B (A x) beside W x rounds the layer's output as often.
    Of eight draws the farthest, twice for the two.
    """
    unmoved, farthest = pictures(pipeline), 0.0
    for _ in range(8):
        moved = copy.deepcopy(pipeline)
        with torch.no_grad():
            for p in moved.unet.parameters():
                p.copy_(torch.nextafter(p, torch.where(torch.rand_like(p) < 0.5, -torch.inf, torch.inf)))
        farthest = max(farthest, distance(pictures(moved), unmoved))
    return 2 * farthest


def distance(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


@pytest.fixture(scope="module")
def tolerance(written: Written) -> float:
    """Of pixels from 0 to 1, for the LoRA run merged."""
    return rounding(plain(written["lora", "diffusers"][0].parent))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_plain_library_draws_the_runs_own_pixels(
    runs: dict[str, Path], written: Written, model: Path, tolerance: float, kind: str, name: str
) -> None:
    wanted, base = pictures(own(runs[kind], model)), pictures(plain(model))
    found = pictures(read_plainly(name, written[kind, name], model))
    assert distance(found, wanted) <= (0 if (kind, name) in EXACT else tolerance)
    assert distance(found, base) > max(1e-3, 10 * tolerance), "the base draws others"


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_our_loader_draws_the_runs_own_pixels(
    runs: dict[str, Path], written: Written, model: Path, tolerance: float, kind: str, name: str
) -> None:
    wanted, folder = pictures(own(runs[kind], model)), written[kind, name][0].parent
    for path in (folder, *([written[kind, name][0]] if name != "diffusers" else [])):
        found = pictures(erase.load(path, base=str(model)))
        assert distance(found, wanted) <= (0 if kind != "lora" else tolerance)


def test_all_merged_formats_of_a_lora_run_agree_bit_for_bit(written: Written, model: Path) -> None:
    drawn = [pictures(erase.load(written["lora", name][0].parent, base=model)) for name in FORMATS]
    assert all(torch.equal(drawn[0], other) for other in drawn)


def test_each_run_has_its_formats(runs: dict[str, Path]) -> None:
    assert available(runs["lora"]) == ["diffusers", "lora", "kohya", "delta", "unet"]
    assert available(runs["full"]) == available(runs["cross_attention"]) == ["diffusers", "delta", "unet"]


def test_a_delta_holds_the_changed_tensors_alone(runs: dict[str, Path], written: Written, model: Path) -> None:
    before = plain(model).unet.state_dict()
    for kind in RUNS:
        after = plain(written[kind, "diffusers"][0].parent).unet.state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        delta = load_file(written[kind, "delta"][0])
        assert set(delta) == changed
        assert all(torch.equal(delta[name], after[name]) for name in delta)
    assert all("attn2" in name for name in load_file(written["cross_attention", "delta"][0]))


def test_no_file_names_a_folder_of_this_machine(runs: dict[str, Path], written: Written, model: Path) -> None:
    assert str(model) in (runs["full"] / "unet" / "config.json").read_text(), "diffusers notes where it loaded from"
    for file in (file for files in written.values() for file in files):
        assert str(model).encode() not in file.read_bytes()
        assert str(runs["full"].parents[1]).encode() not in file.read_bytes()


def test_only_models_files_are_written(written: Written) -> None:
    assert {file.suffix for files in written.values() for file in files} == {".safetensors", ".json"}
    names = {file.relative_to(written["full", "diffusers"][-1].parents[1]).parts[0] for file in on_disk(written)}
    assert names == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def on_disk(written: Written) -> Iterator[Path]:
    folder = next(file.parent for file in written["full", "diffusers"] if file.name == "model_index.json")
    return (file for file in folder.rglob("*") if file.is_file())


def test_the_files_written_are_those_on_the_disk(written: Written) -> None:
    assert set(written["full", "diffusers"]) == set(on_disk(written))
    for files in written.values():
        assert all(file.is_file() for file in files)


@pytest.fixture(scope="module")
def changed_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded pipeline, its cross-attention values scaled, as a run's folder."""
    folder, base = tmp_path_factory.mktemp("shapes") / "run", embedded.WEIGHTS / "pipeline"
    pipeline = plain(base)
    with torch.no_grad():
        for name, p in pipeline.unet.named_parameters():
            if name.endswith("attn2.to_v.weight"):
                p.mul_(0.5)
    pipeline.save_pretrained(folder)
    write_json(folder / "provenance.json", {"base": {"model": "shapes", "revision": None, "hash": hash_folder(base)}})
    return folder


@pytest.mark.parametrize("name", ["diffusers", "delta", "unet"])
def test_the_embedded_model_is_the_base_where_none_is_given(changed_shapes: Path, tmp_path: Path, name: str) -> None:
    files = write_format(changed_shapes, name, tmp_path)
    wanted, base = pictures(plain(changed_shapes)), pictures(plain(embedded.WEIGHTS / "pipeline"))
    assert torch.equal(pictures(erase.load(tmp_path)), wanted)
    assert torch.equal(pictures(read_plainly(name, files[:1], embedded.WEIGHTS / "pipeline")), wanted)
    assert distance(base, wanted) > 1e-2


def test_esds_and_uces_files_are_read(model: Path, tmp_path: Path) -> None:
    """ESD-x: every tensor of the linear layers of `attn2`, in bfloat16; UCE: the key and value weights, in float32."""
    pipeline = plain(model)
    chosen = {name: p * 0.5 for name, p in pipeline.unet.state_dict().items() if ".attn2." in name}
    esd = {name: tensor.to(torch.bfloat16) for name, tensor in chosen.items()}
    uce = {name: chosen[name] for name in chosen if name.endswith(("to_k.weight", "to_v.weight"))}
    for name, tensors in {"esd-star-from-star-esdx": esd, "uce_star": uce}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        wanted = plain(model)
        wanted.unet.load_state_dict(tensors, strict=False)
        loaded = erase.load(tmp_path / f"{name}.safetensors", base=model)
        assert loaded.unet.dtype == torch.float32
        assert torch.equal(pictures(loaded), pictures(wanted))
        assert distance(pictures(loaded), pictures(pipeline)) > 1e-3


def test_unet_weights_alone_as_diffusers_saves_them_are_read(runs: dict[str, Path], model: Path) -> None:
    assert torch.equal(pictures(erase.load(runs["full"] / "unet", base=model)), pictures(plain(runs["full"])))


def test_loading_costs_no_import_until_it_is_asked_for() -> None:
    assert "load" in erase.__all__ and callable(erase.load)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        erase.lod  # noqa: B018


def test_a_format_replaces_its_own_files_and_leaves_others(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("kept")
    first = write_format(runs["full"], "diffusers", tmp_path)
    (tmp_path / "unet" / "old.safetensors").write_bytes(b"x")
    assert write_format(runs["full"], "diffusers", tmp_path) == first
    assert sorted(os.listdir(tmp_path)) == sorted({f.relative_to(tmp_path).parts[0] for f in first} | {"README.md"})
    assert not (tmp_path / "unet" / "old.safetensors").exists()
    assert "_name_or_path" not in json.loads((tmp_path / "unet" / "config.json").read_text())
