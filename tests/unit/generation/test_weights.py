"""Weights that are no whole pipeline are found, told apart and put in whole, or refused by the tensor's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

from erase.diffusion.foreign import INDEX
from erase.errors import UserError
from erase.generation.lora import NAME, find_lora, is_lora
from erase.generation.unet_weights import TENSORS, put_unet
from erase.generation.weights import find_weights, is_weights, put_weights
from tests.tiny import save_tiny, tiny_pipeline, tiny_unet
from tests.unit.generation.test_lora import save_lora

KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def other() -> dict[str, Tensor]:
    """Another UNet's tensors."""
    torch.manual_seed(5)
    return {name: tensor.clone() for name, tensor in tiny_unet().state_dict().items()}


def write(file: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    save_file(tensors, file, {"format": "pt", **metadata})
    return file


def refused(path: Path, pipeline: Any = None) -> str:
    with pytest.raises(UserError) as caught:
        put_weights(pipeline or tiny_pipeline(), path)
    return str(caught.value)


def test_a_delta_replaces_its_tensors_and_no_others(tmp_path: Path, other: dict[str, Tensor]) -> None:
    chosen = {name: tensor for name, tensor in other.items() if ".attn2." in name}
    pipeline, before = tiny_pipeline(), tiny_pipeline().unet.state_dict()
    put_weights(pipeline, write(tmp_path / "esd.safetensors", chosen))
    for name, tensor in pipeline.unet.state_dict().items():
        assert torch.equal(tensor, chosen.get(name, before[name]))
    assert not any(p.requires_grad for p in pipeline.unet.parameters())


def test_a_whole_state_dict_replaces_everything(tmp_path: Path, other: dict[str, Tensor]) -> None:
    pipeline = tiny_pipeline()
    put_weights(pipeline, write(tmp_path / "unet.safetensors", other))
    assert all(torch.equal(tensor, other[name]) for name, tensor in pipeline.unet.state_dict().items())


def test_lora_is_told_from_tensors_of_the_model(tmp_path: Path, other: dict[str, Tensor]) -> None:
    assert is_lora(save_lora(tmp_path))
    assert not is_lora(write(tmp_path / "d.safetensors", {KEY: other[KEY]}))
    assert is_lora(write(tmp_path / "k.safetensors", {"lora_unet_x.lora_down.weight": torch.ones(1)}))


@pytest.mark.parametrize(
    "strange", ["up_blocks.9.attentions.0.transformer_blocks.0.attn2.to_k.weight", "model.diffusion_model.out.0.bias"]
)
def test_a_tensor_without_a_place_is_refused_and_named(tmp_path: Path, other: dict[str, Tensor], strange: str) -> None:
    file = write(tmp_path / "x.safetensors", {KEY: other[KEY], strange: torch.ones(1)})
    assert f"no place for 1 of its 2 tensors, such as {strange}" in refused(file)


def test_a_tensor_of_another_shape_is_refused_and_named(tmp_path: Path) -> None:
    found = refused(write(tmp_path / "x.safetensors", {KEY: torch.ones(320, 768)}))
    assert f"size mismatch for {KEY}" in found


def test_a_whole_unet_that_lacks_a_tensor_is_refused_and_named(tmp_path: Path, other: dict[str, Tensor]) -> None:
    lacking = {name: tensor for name, tensor in other.items() if name != KEY}
    found = refused(write(tmp_path / "unet.safetensors", lacking))
    assert f"holds a whole UNet but for 1 tensors, such as {KEY}" in found


@pytest.mark.parametrize("kind", ["esd-x", "esd-u", "esd-all", "esd-x-strict"])
def test_none_of_esds_selections_is_taken_for_a_whole_unet(tmp_path: Path, other: dict[str, Tensor], kind: str) -> None:
    """ESD takes parameters of linear and convolution layers alone: two dimensions or four, and their biases."""
    unet = tiny_unet()
    layers = {n for n, m in unet.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)}
    rules: dict[str, Callable[[str], bool]] = {
        "esd-x": lambda name: "attn2" in name,
        "esd-u": lambda name: "attn2" not in name,
        "esd-all": bool,
        "esd-x-strict": lambda name: "attn2.to_k" in name or "attn2.to_v" in name,
    }
    chosen = {n: t for n, t in other.items() if n.rpartition(".")[0] in layers and rules[kind](n)}
    assert 0 < len(chosen) < len(other)
    put_unet(unet, write(tmp_path / "esd.safetensors", chosen))
    assert all(torch.equal(unet.state_dict()[name], tensor) for name, tensor in chosen.items())


@pytest.mark.parametrize("change", ["lost", "won"])
def test_a_file_that_lists_its_tensors_must_hold_them(tmp_path: Path, other: dict[str, Tensor], change: str) -> None:
    listed = [name for name in other if ".attn2." in name and (change == "lost" or name != KEY)]
    held = {name: other[name] for name in other if ".attn2." in name and (change == "won" or name != KEY)}
    file = write(tmp_path / "d.safetensors", held, **{TENSORS: json.dumps(listed)})
    assert f"does not hold the tensors that it was written with: {KEY}" in refused(file)


def test_a_dora_is_refused(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {"lora_down.weight": torch.ones(2, 16), "lora_up.weight": torch.ones(16, 2), "dora_scale": torch.ones(16)}
    file = write(tmp_path / "dora.safetensors", {f"{name}.{key}": value for key, value in tensors.items()})
    assert f"is a DoRA, which diffusers does not read: it would leave out {name}.dora_scale" in refused(file)


def test_a_kohya_file_with_a_strange_layer_is_refused_and_named(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {"lora_down.weight": torch.ones(2, 16), "lora_up.weight": torch.ones(16, 2), "alpha": torch.tensor(2.0)}
    found = refused(write(tmp_path / "k.safetensors", {f"{name}.{key}": value for key, value in tensors.items()}))
    assert "does not fit the model" in found


@pytest.mark.parametrize("ending", ["bin", "pt", "ckpt", "pth"])
def test_pickles_are_refused_unopened(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"esd.{ending}"
    file.write_bytes(b"not even a pickle")
    for path in (file, tmp_path):
        assert is_weights(path)
        assert f"{file} is no *.safetensors file; other formats can run code and are not read" in refused(path)


def test_of_several_files_one_must_be_named(tmp_path: Path, other: dict[str, Tensor]) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", {KEY: other[KEY]})
    assert "holds several files of weights: a.safetensors, b.safetensors; name one of them" in refused(tmp_path)
    save_lora(tmp_path)
    assert find_lora(tmp_path).name == NAME


def test_a_whole_pipeline_is_not_weights(tmp_path: Path) -> None:
    whole = save_tiny(tmp_path / "model")
    assert not is_weights(whole) and find_weights(str(whole)) is None
    assert is_weights(whole / "unet") and find_weights(str(whole / "unet")) == whole / "unet"
    assert not is_weights(tmp_path) and not is_weights(tmp_path / "nowhere")
    assert find_weights("shapes") is None


def test_a_revision_of_what_is_on_this_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"erased_revision: .* has none; found main; leave it out"):
        find_weights(str(tmp_path), "main", "erased_revision")


@pytest.mark.parametrize(("file", "is_found"), [(NAME, True), (INDEX, False)])
def test_lora_of_the_hub_is_found_and_a_pipeline_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, is_found: bool
) -> None:
    """In the cache of huggingface_hub, laid out as its client does; there is no network."""
    repository, commit = tmp_path / "models--me--sd-without-star", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / file).write_bytes(b"x")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = find_weights("me/sd-without-star")
    assert found == (repository / "snapshots" / commit / NAME if is_found else None)
    assert find_weights("me/another") is None
