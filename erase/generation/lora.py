"""LoRA weights, found and folded into a pipeline; what does not fit is refused, where diffusers would pass it over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from erase.diffusion.foreign import PICKLES
from erase.diffusion.pipelines import text_encoders
from erase.errors import UserError
from erase.generation.unet_weights import is_unet_tensor, read_names

NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file in a folder."""
ADAPTER = "erased"


def find_lora(path: Path) -> Path:
    """The safetensors file of a setting that names it or its folder: LoRA weights, or tensors of a UNet."""
    file = path if path.is_file() or not path.is_dir() else _file_of(path)
    if not file.is_file():
        raise UserError(f"lora: {file}: there is no such file; give a *.safetensors file or a folder with {NAME}")
    if file.suffix != ".safetensors":
        raise UserError(f"lora: {file} is no *.safetensors file; other formats can run code and are not read")
    try:
        names = read_names(file)
    except UserError as error:
        raise UserError(f"lora: {error}") from None
    if not any(map(_is_lora_tensor, names)) and not any(map(is_unet_tensor, names)):
        shown = f", but {names[0]}" if names else ""
        raise UserError(
            f"lora: {file} holds no LoRA weights and no tensors that a diffusers UNet has{shown}; "
            "a whole model is given as `model`"
        )
    return file


def is_lora(file: Path) -> bool:
    """Whether a file of weights holds LoRA; else it holds tensors of the model itself."""
    return any(map(_is_lora_tensor, read_names(file)))


def _is_lora_tensor(name: str) -> bool:
    return "lora" in name.lower()


def _file_of(folder: Path) -> Path:
    """The file that diffusers would read in a folder, else the only one there is."""
    files = sorted(folder.glob("*.safetensors")) or sorted(f for f in folder.iterdir() if f.suffix in PICKLES)
    if (folder / NAME).is_file() or not files:
        return folder / NAME
    if len(files) > 1:
        shown = ", ".join(file.name for file in files)
        raise UserError(f"lora: {folder} holds several files of weights: {shown}; name one of them")
    return files[0]


def fold_lora(pipeline: Any, file: Path) -> None:
    """Adds B A of every layer to the pipeline's weights, and leaves no adapter behind."""
    if scales := [name for name in read_names(file) if "dora_scale" in name]:
        raise UserError(f"lora: {file} is a DoRA, which diffusers does not read: it would leave out {scales[0]}")
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
    parts = _adaptable(pipeline)
    pipeline.fuse_lora(components=[name for name, part in parts.items() if getattr(part, "peft_config", None)])
    pipeline.unload_lora_weights()
    for part in parts.values():
        part.requires_grad_(False).eval()


def _adaptable(pipeline: Any) -> dict[str, Any]:
    """The parts that a LoRA may change, by name."""
    return {"unet": pipeline.unet, **text_encoders(pipeline)}


def _loaded(pipeline: Any) -> int:
    """Tensors of LoRA layers that the pipeline has now; a layer that the file fills by half counts whole."""
    return sum("lora_" in name for part in _adaptable(pipeline).values() for name, _ in part.named_parameters())


def _unknown_layers(pipeline: Any, names: list[str]) -> list[str]:
    """Tensors of the file whose layer the pipeline lacks."""
    layers = {
        f"{name}.{layer}".replace(".base_layer", "")
        for name, part in _adaptable(pipeline).items()
        for layer, _ in part.named_modules()
    }
    return [name for name in names if name.split(".lora")[0] not in layers]
