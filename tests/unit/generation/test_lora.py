"""LoRA weights are folded in whole, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from erase.errors import UserError
from erase.generation.lora import NAME, find_lora, fold_lora
from tests.tiny import tiny_pipeline

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


def save_lora(folder: Path, parts: tuple[str, ...] = ("unet",)) -> Path:
    """Rank 2 on every key and value projection, with weights that are not zero, as diffusers writes them."""
    pipeline, layers = tiny_pipeline(), {}
    targets = {"unet": ["to_k", "to_v"], "text_encoder": ["k_proj", "v_proj"]}
    for part in parts:
        model = getattr(pipeline, part)
        model.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets[part]))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
    pipeline.save_lora_weights(folder, **layers)
    return folder / NAME


def change(file: Path, **tensors: Any) -> Path:
    """The file with some tensors more; ``None`` takes one away."""
    content = load_file(file)
    for name, tensor in tensors.items():
        content.pop(name, None)
        if tensor is not None:
            content[name] = tensor
    save_file(content, file)
    return file


def fold(file: Path) -> Any:
    pipeline = tiny_pipeline()
    fold_lora(pipeline, file)
    return pipeline


def test_the_weights_are_w_plus_b_a(tmp_path: Path) -> None:
    file = save_lora(tmp_path)
    content, before, after = load_file(file), tiny_pipeline().unet.state_dict(), fold(file).unet.state_dict()
    assert after.keys() == before.keys(), "no adapter is left"
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {f"unet.{name.removesuffix('.weight')}" for name in moved} == {name.split(".lora")[0] for name in content}
    down, up = content[f"unet.{LAYER}.lora_A.weight"], content[f"unet.{LAYER}.lora_B.weight"]
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + up @ down)


def test_the_text_encoder_is_folded_too(tmp_path: Path) -> None:
    before, after = tiny_pipeline(), fold(save_lora(tmp_path, ("unet", "text_encoder")))
    for part in ("unet", "text_encoder"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert old.keys() == new.keys()
        assert any(not torch.equal(old[name], new[name]) for name in old)


def test_a_file_or_its_folder_is_found(tmp_path: Path) -> None:
    file = save_lora(tmp_path)
    assert find_lora(file) == find_lora(tmp_path) == file
    renamed = file.rename(tmp_path / "other.safetensors")
    assert find_lora(renamed) == renamed
    fold(renamed)


def test_what_is_no_lora_file_is_refused(tmp_path: Path) -> None:
    whole, pickle, damaged = tmp_path / "m.safetensors", tmp_path / "m.bin", tmp_path / "d.safetensors"
    save_file({"weight": torch.zeros(1)}, whole)
    pickle.write_bytes(b"x")
    damaged.write_bytes(b"x")
    for file, says in (
        (whole, "holds no LoRA"),
        (pickle, "can run code"),
        (damaged, "damaged"),
        (tmp_path / "no", "no such"),
        (tmp_path, "several files"),
    ):
        with pytest.raises(UserError, match=f"lora: .*{says}"):
            find_lora(file)


@pytest.mark.parametrize(
    "strange",
    ["unet.down_blocks.7.attentions.0.transformer_blocks.0.attn2.to_k", "transformer.blocks.0.to_k", "unet.mid.to_out"],
)
def test_a_layer_that_the_model_lacks_is_refused_and_named(tmp_path: Path, strange: str) -> None:
    more = {f"{strange}.lora_A.weight": torch.ones(2, 16), f"{strange}.lora_B.weight": torch.ones(16, 2)}
    file = change(save_lora(tmp_path), **more)
    with pytest.raises(UserError, match=r"lora: .* does not fit the model") as caught:
        fold(file)
    assert "tensors" not in str(caught.value) or strange in str(caught.value)


def test_half_a_layer_is_refused(tmp_path: Path) -> None:
    file = change(save_lora(tmp_path), **{f"unet.{LAYER}.lora_B.weight": None})
    with pytest.raises(UserError, match="does not fit the model"):
        fold(file)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    file = change(save_lora(tmp_path), **{f"unet.{LAYER}.lora_A.weight": torch.ones(2, 768)})
    with pytest.raises(UserError, match="does not fit the model"):
        fold(file)
