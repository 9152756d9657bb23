"""LoRA weights, folded into a pipeline; weights that do not fit it are refused, which diffusers would pass over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from erase.errors import UserError

NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file in a folder."""
ADAPTER = "erased"
PARTS = ("unet", "text_encoder")


def find_lora(path: Path) -> Path:
    """The safetensors file of a setting that names it or its folder."""
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"lora: {file}: there is no such file; give a *.safetensors file or a folder with {NAME}")
    if file.suffix != ".safetensors":
        raise UserError(f"lora: {file} is no *.safetensors file; other formats can run code and are not read")
    try:
        with safe_open(file, "pt") as weights:
            found = any("lora" in name.lower() for name in weights.keys())  # noqa: SIM118, no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"lora: {file} is damaged: {error}; download or copy it again") from None
    if not found:
        raise UserError(f"lora: {file} holds no LoRA weights; a whole model is given as `model`")
    return file


def fold_lora(pipeline: Any, file: Path) -> None:
    """Adds B A of every layer to the pipeline's weights, and leaves no adapter behind."""
    try:
        weights, _ = pipeline.lora_state_dict(str(file.parent), weight_name=file.name, local_files_only=True)
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=ADAPTER, local_files_only=True)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"lora: {file} does not fit the model: {error}") from None
    given, loaded = len(weights), _loaded(pipeline)
    if given != loaded:
        strange = _unknown_layers(pipeline, list(weights))
        shown = f", such as {strange[0]}" if strange else ""
        raise UserError(
            f"lora: {file} does not fit the model: it has {given} tensors, {loaded} have a place in it{shown}; "
            "give the model that it was trained on"
        )
    pipeline.fuse_lora(components=[part for part in PARTS if getattr(getattr(pipeline, part), "peft_config", None)])
    pipeline.unload_lora_weights()
    for part in PARTS:
        getattr(pipeline, part).requires_grad_(False).eval()


def _loaded(pipeline: Any) -> int:
    """Tensors of LoRA layers that the pipeline has now; a layer that the file fills by half counts whole."""
    return sum("lora_" in name for part in PARTS for name, _ in getattr(pipeline, part).named_parameters())


def _unknown_layers(pipeline: Any, names: list[str]) -> list[str]:
    """Tensors of the file whose layer the pipeline lacks."""
    layers = {f"{part}.{name}".replace(".base_layer", "") for part in PARTS for name in layer_names(pipeline, part)}
    return [name for name in names if name.split(".lora")[0] not in layers]


def layer_names(pipeline: Any, part: str) -> list[str]:
    """The names of a part's modules."""
    return [name for name, _ in getattr(pipeline, part).named_modules()]
