"""A LoRA run's adapter under the names of diffusers, and under those of kohya, which A1111 and ComfyUI read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from erase.errors import UserError
from erase.generation.lora import NAME
from erase.publication.run_folder import RunFolder
from erase.publication.unet_tensors import save_tensors

KOHYA = "lora_kohya.safetensors"
HALVES = {
    ".lora.down.weight": ".lora_down.weight",
    ".lora.up.weight": ".lora_up.weight",
    ".lora_A.weight": ".lora_down.weight",
    ".lora_B.weight": ".lora_up.weight",
}
"""A and B: how diffusers' names end, and kohya's."""
SETTINGS = "lora_adapter_metadata"
"""Key of the file's metadata under which diffusers keeps the adapter's settings."""


def write_lora(run: RunFolder, folder: Path) -> None:
    """The adapter as it is, bit for bit."""
    shutil.copyfile(_adapter(run), folder / NAME)


def write_kohya(run: RunFolder, folder: Path) -> None:
    """``lora_unet_<layer>.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``; the update is alpha / rank B A.

    kohya writes a layer's name with ``_`` for each dot, which only some layers survive: what diffusers would not read
    back as it was is refused.
    """
    file = _adapter(run)
    tensors, settings = load_file(file), _settings(file)
    alpha = float(settings["lora_alpha"])
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, half = _split(name)
        written[f"lora_unet_{layer.replace('.', '_')}{half}"] = tensor
        written[f"lora_unet_{layer.replace('.', '_')}.alpha"] = torch.tensor(alpha)
    _check_read_back(written, tensors)
    noted = {"ss_network_module": "networks.lora", "ss_network_dim": settings["r"], "ss_network_alpha": alpha}
    save_tensors(written, folder / KOHYA, {key: str(value) for key, value in noted.items()})


def _adapter(run: RunFolder) -> Path:
    if run.adapter is None:
        raise UserError(
            f"format: {run.folder} moved the UNet's weights themselves; a difference of low rank would be another "
            "model. Train with parameters.name lora, or take delta, which holds the changed tensors"
        )
    return run.adapter


def _settings(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as weights:
        settings = json.loads((weights.metadata() or {}).get(SETTINGS, "{}"))
    settings = {key.removeprefix("unet."): value for key, value in settings.items()}
    if "lora_alpha" not in settings or "r" not in settings:
        raise UserError(f"run: {file} does not say its alpha and rank ({SETTINGS}), so its scale is unknown")
    named = [key for key in ("alpha_pattern", "rank_pattern", "use_rslora", "use_dora") if settings.get(key)]
    if named:
        raise UserError(f"format: kohya has no word for {', '.join(named)} of {file}; take lora")
    return settings


def _split(name: str) -> tuple[str, str]:
    """A tensor's layer, and kohya's ending for it."""
    for ending, kohya in HALVES.items():
        if name.startswith("unet.") and name.endswith(ending):
            return name.removeprefix("unet.").removesuffix(ending), kohya
    raise UserError(f"format: kohya has no name for the tensor {name}; take lora")


def _plain(name: str) -> str:
    """A tensor's name in any of diffusers' spellings, in one of them."""
    name = name.replace(".processor.", ".").replace("_lora.", ".lora.").replace("to_out.lora", "to_out.0.lora")
    return name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B.")


def _check_read_back(written: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    read, _ = StableDiffusionPipeline.lora_state_dict(dict(written))
    found = {_plain(name) for name in read}
    lost = sorted({_plain(name) for name in tensors} ^ found)
    if lost:
        raise UserError(f"format: the layer of {lost[0]} does not survive kohya's names; take lora")
