"""A folder of others is refused if it would run code, and if its UNet is not what its config says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.diffusion.foreign import check_foreign, check_pickles
from erase.errors import UserError
from tests.tiny import save_tiny

UNET = "unet/diffusion_pytorch_model.safetensors"
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def refused(check: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        check()
    return str(caught.value)


def change(file: Path, **keys: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | keys), encoding="utf-8")


def test_a_pipeline_of_the_libraries_passes(folder: Path) -> None:
    check_foreign(folder)
    check_pickles(folder)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"_class_name": ["pipeline", "Mine"]}, "names a pipeline of its own, ['pipeline', 'Mine']"),
        ({"unet": ["my_unet", "MyUNet"]}, "takes its unet from ['my_unet', 'MyUNet']"),
        ({"scheduler": ["os", "system"]}, "takes its scheduler from ['os', 'system']"),
        ({"scheduler": []}, "takes its scheduler from []"),
        ({"../../other": ["diffusers", "AutoencoderKL"]}, "has a part named '../../other', which is no name"),
    ],
)
def test_classes_of_a_models_own_are_refused(folder: Path, keys: dict[str, Any], says: str) -> None:
    change(folder / "model_index.json", **keys)
    assert says in refused(lambda: check_foreign(folder))


@pytest.mark.parametrize("place", ["pipeline.py", "unet/my_unet.py", "scheduler/scheduling_mine.py"])
def test_code_beside_the_weights_is_refused_and_never_run(folder: Path, place: str) -> None:
    (folder / place).write_text("raise SystemExit('run')")
    found = refused(lambda: check_foreign(folder))
    assert f"{folder / place} is code of the model's own; code of a model's own is not run" in found


@pytest.mark.parametrize("place", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
def test_a_config_that_maps_to_code_is_refused(folder: Path, place: str) -> None:
    change(folder / place, auto_map={"AutoModel": "mine.Model"})
    assert f"{folder / place} names code of the model's own (auto_map)" in refused(lambda: check_foreign(folder))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({LAYER: None}, f"is without 1 tensors, such as {LAYER}"),
        ({"up_blocks.9.strange": torch.ones(1)}, "has no place for 1 tensors, such as up_blocks.9.strange"),
        ({LAYER: torch.ones(2, 2)}, f"has another shape for 1 tensors, such as {LAYER}"),
    ],
)
def test_a_unet_whose_tensors_do_not_fit_is_refused_by_name(
    folder: Path, tensors: dict[str, torch.Tensor | None], says: str
) -> None:
    content = load_file(folder / UNET) | tensors
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, folder / UNET)
    assert says in refused(lambda: check_foreign(folder))


def test_a_config_that_makes_no_unet_is_refused(folder: Path) -> None:
    change(folder / "unet" / "config.json", down_block_types=["NoSuchBlock"])
    assert "makes no UNet" in refused(lambda: check_foreign(folder))


@pytest.mark.parametrize("ending", ["bin", "pt", "ckpt"])
def test_a_part_that_is_a_pickle_alone_is_refused_unopened(folder: Path, ending: str) -> None:
    change(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    (folder / "safety_checker").mkdir()
    pickle = folder / "safety_checker" / f"pytorch_model.{ending}"
    pickle.write_bytes(b"not even a pickle")
    assert f"{pickle} is a pickle, which can run code" in refused(lambda: check_pickles(folder))
    save_file({"x": torch.zeros(1)}, folder / "safety_checker" / "model.safetensors")
    check_pickles(folder)


def test_what_is_no_pipeline_is_refused_as_such(tmp_path: Path) -> None:
    assert "has no model_index.json" in refused(lambda: check_foreign(tmp_path))
