"""What a run can be written as, what is refused and why, and that a refusal writes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from erase.errors import UserError
from erase.generation.lora import NAME
from erase.generation.unet_weights import TENSORS
from erase.provenance import hash_folder, write_json
from erase.publication.formats import FORMATS, available, write_format
from erase.publication.loading import load
from tests.tiny import save_tiny, tiny_pipeline

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


def note(folder: Path, base: Path) -> Path:
    write_json(folder / "provenance.json", {"base": {"model": str(base), "revision": None, "hash": hash_folder(base)}})
    return folder


def full_run(folder: Path, base: Path, moved: str = f"unet.{LAYER}.weight") -> Path:
    """The base with one tensor doubled."""
    pipeline = tiny_pipeline()
    with torch.no_grad():
        part, _, name = moved.partition(".")
        dict(getattr(pipeline, part).named_parameters())[name].mul_(2)
    pipeline.save_pretrained(folder)
    return note(folder, base)


def lora_run(folder: Path, base: Path, *layers: str, **config: Any) -> Path:
    """An adapter of rank 2 and alpha 8, in peft's spelling of diffusers' keys, which does for every layer."""
    pipeline = tiny_pipeline()
    given = {"r": 2, "lora_alpha": 8, "target_modules": list(layers) or ["to_k", "to_out.0"], **config}
    pipeline.unet.add_adapter(LoraConfig(**given))
    for name, p in pipeline.unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.3)
    noted = pipeline.unet.peft_config["default"].to_dict()
    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=noted)
    return note(folder, base)


def refused(run: Path, name: str, folder: Path) -> str:
    """The reason; what was there stays as it was."""
    before = sorted(os.listdir(folder)) if folder.exists() else []
    with pytest.raises(UserError) as caught:
        write_format(run, name, folder)
    assert (sorted(os.listdir(folder)) if folder.exists() else []) == before
    return str(caught.value)


def test_kohyas_names_halves_and_alpha(base: Path, tmp_path: Path) -> None:
    run = lora_run(tmp_path / "run", base)
    (file,) = write_format(run, "kohya", tmp_path / "out")
    ours, kohya = load_file(run / NAME), load_file(file)
    for layer in (LAYER, LAYER.replace("to_k", "to_out.0")):
        name = "lora_unet_" + layer.replace(".", "_")
        assert torch.equal(kohya[f"{name}.lora_down.weight"], ours[f"unet.{layer}.lora_A.weight"])
        assert torch.equal(kohya[f"{name}.lora_up.weight"], ours[f"unet.{layer}.lora_B.weight"])
        assert kohya[f"{name}.alpha"].item() == 8.0 and kohya[f"{name}.alpha"].shape == ()
        assert kohya[f"{name}.lora_down.weight"].shape[0] == 2
    assert len(kohya) == len(ours) * 3 // 2


def test_the_lora_format_is_the_runs_own_file(base: Path, tmp_path: Path) -> None:
    run = lora_run(tmp_path / "run", base)
    (file,) = write_format(run, "lora", tmp_path / "out")
    assert file.name == NAME and file.read_bytes() == (run / NAME).read_bytes()


def test_a_delta_of_one_tensor_holds_one_tensor(base: Path, tmp_path: Path) -> None:
    (file,) = write_format(full_run(tmp_path / "run", base), "delta", tmp_path / "out")
    assert list(load_file(file)) == [f"{LAYER}.weight"]
    with safe_open(file, "pt") as weights:
        assert json.loads(weights.metadata()[TENSORS]) == [f"{LAYER}.weight"]


@pytest.mark.parametrize("name", ["lora", "kohya"])
def test_a_full_run_has_no_lora_and_the_reason_is_given(base: Path, tmp_path: Path, name: str) -> None:
    run = full_run(tmp_path / "run", base)
    assert available(run) == ["diffusers", "delta", "unet"]
    assert "a difference of low rank would be another model" in refused(run, name, tmp_path / "out")


def test_a_run_that_is_its_base_has_no_delta(base: Path, tmp_path: Path) -> None:
    run = note(save_tiny(tmp_path / "run"), base)
    assert "is its base's, bit for bit" in refused(run, "delta", tmp_path / "out")


@pytest.mark.parametrize("name", ["delta", "unet"])
@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_run_that_moved_another_part_has_no_format_of_its_unet(
    base: Path, tmp_path: Path, name: str, part: str
) -> None:
    moved = {
        "vae": "vae.decoder.conv_in.weight",
        "text_encoder": f"text_encoder.{next(n for n, _ in tiny_pipeline().text_encoder.named_parameters())}",
    }
    run = full_run(tmp_path / "run", base, moved[part])
    assert f"differs from its base in {part} too" in refused(run, name, tmp_path / "out")


@pytest.mark.parametrize("name", ["delta", "unet"])
def test_a_base_that_has_changed_since_is_refused(tmp_path: Path, name: str) -> None:
    base = save_tiny(tmp_path / "base")
    run = full_run(tmp_path / "run", base)
    save_tiny(base, seed=1)
    assert "whose files have changed since" in refused(run, name, tmp_path / "out")


def test_a_layer_that_kohyas_names_do_not_carry_is_refused(base: Path, tmp_path: Path) -> None:
    """Every layer of a Stable Diffusion UNet survives; a name with an underscore of its own may not."""
    run = lora_run(tmp_path / "run", base)
    with safe_open(run / NAME, "pt") as weights:
        metadata = weights.metadata()
    content = {name.replace("to_k", "my_layer"): tensor for name, tensor in load_file(run / NAME).items()}
    save_file(content, run / NAME, metadata)
    assert "does not survive kohya's names; take lora" in refused(run, "kohya", tmp_path / "out")


@pytest.mark.parametrize(
    "config", [{"use_rslora": True}, {"alpha_pattern": {"to_k": 4}}, {"rank_pattern": {"to_k": 4}}]
)
def test_what_kohya_has_no_word_for_is_refused(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    run = lora_run(tmp_path / "run", base, **config)
    assert f"kohya has no word for {next(iter(config))}" in refused(run, "kohya", tmp_path / "out")
    assert write_format(run, "lora", tmp_path / "out") == [tmp_path / "out" / NAME]


def test_an_unknown_format_lists_the_known_ones(base: Path, tmp_path: Path) -> None:
    found = refused(full_run(tmp_path / "run", base), "ckpt", tmp_path / "out")
    assert found == "format: 'ckpt' is unknown; choose from diffusers, lora, kohya, delta, unet"


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_finished_run_is_refused(base: Path, tmp_path: Path, name: str) -> None:
    assert "is no folder" in refused(tmp_path / "nowhere", name, tmp_path / "out")
    assert "has no provenance.json: it is no run, or one that has not finished" in refused(base, name, tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "neither a pipeline nor an adapter" in refused(note(empty, base), name, tmp_path / "out")
    both = full_run(tmp_path / "both", base)
    (both / NAME).write_bytes(b"")
    assert "both a pipeline and an adapter" in refused(both, name, tmp_path / "out")
    (both / "provenance.json").write_text('{"base": "shapes"}')
    assert "is damaged or of another kind of run" in refused(both, name, tmp_path / "out")


def test_a_half_written_pipeline_replaces_nothing(base: Path, tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", base)
    write_format(run, "diffusers", tmp_path / "out")
    before = hash_folder(tmp_path / "out")
    for file in (run / "tokenizer").iterdir():
        file.unlink()
    assert "is missing or empty" in refused(run, "diffusers", tmp_path / "out")
    assert hash_folder(tmp_path / "out") == before


def test_a_file_in_the_folders_place_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="folder: "):
        write_format(full_run(tmp_path / "run", base), "diffusers", tmp_path / "out")


def test_a_revision_of_a_local_model_or_base_is_refused(base: Path, tmp_path: Path) -> None:
    (file,) = write_format(full_run(tmp_path / "run", base), "delta", tmp_path / "out")
    with pytest.raises(UserError, match=r"^revision: .* is on this machine and has none; found main; leave it out"):
        load(base, revision="main")
    with pytest.raises(UserError, match=r"^base_revision: .* is on this machine and has none; found main; leave it"):
        load(file, base=base, base_revision="main")


def test_weights_for_another_base_are_refused_by_name(base: Path, tmp_path: Path) -> None:
    (file,) = write_format(full_run(tmp_path / "run", base), "unet", tmp_path / "out")
    with pytest.raises(UserError, match="size mismatch for"):
        load(file, base="shapes")


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_every_layer_of_a_unet_survives_kohyas_names(base: Path, tmp_path: Path, name: str) -> None:
    kind = getattr(torch.nn, name)
    layers = [layer for layer, module in tiny_pipeline().unet.named_modules() if isinstance(module, kind)]
    run = lora_run(tmp_path / "run", base, *layers)
    (file,) = write_format(run, "kohya", tmp_path / "out")
    assert len(load_file(file)) == 3 * len(layers)
    exact, read = load(run, base), load(file, base)
    for key, tensor in exact.unet.state_dict().items():
        assert torch.equal(tensor, read.unet.state_dict()[key])
