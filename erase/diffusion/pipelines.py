"""Finds, checks and loads a Stable Diffusion pipeline of any family: a local folder or a Hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from erase import embedded
from erase.errors import UserError

ONE_ENCODER: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
TWO_ENCODERS: dict[str, Any] = {**ONE_ENCODER, "text_encoder_2": CLIPTextModelWithProjection}


@dataclass(frozen=True)
class Family:
    """Models that one pipeline class of diffusers samples from."""

    pipeline: Any
    loaders: Mapping[str, Any]
    """The class of each part that has weights, by its folder's name."""
    left_out: Mapping[str, Any]
    """The parts that may be left on the disk, as diffusers is told so."""
    fixed: Mapping[str, Any]
    """What would else depend on which packages are installed."""


INDEX = "model_index.json"
UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}
FAMILIES = {
    "StableDiffusionPipeline": Family(StableDiffusionPipeline, ONE_ENCODER, UNCHECKED, {}),
    "StableDiffusionXLPipeline": Family(StableDiffusionXLPipeline, TWO_ENCODERS, {}, {"add_watermarker": False}),
}
"""What `model_index.json` may name: Stable Diffusion 1.x and 2.x; SDXL. Epsilon or v is the scheduler's business."""
SUPPORTED = "StableDiffusionPipeline (Stable Diffusion 1.x, 2.x), StableDiffusionXLPipeline (SDXL)"


def find_pipeline(model: str, revision: str | None = None) -> Path:
    """The folder of a pipeline, downloaded if ``model`` is a Hub id; nothing but safetensors is fetched."""
    if model == embedded.NAME:
        return embedded.WEIGHTS / "pipeline"
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UserError(f"model: {model!r} is no folder and no Hub id (owner/name); `shapes` is the embedded model")
    try:
        family = _family(Path(hf_hub_download(model, INDEX, revision=revision)), model)
        found = family.pipeline.download(model, revision=revision, use_safetensors=True)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(f"model: {model!r} is no folder here and could not be had from the Hub: {error}") from None
    return Path(found)


def check_pipeline(folder: Path) -> Family:
    """The family of a folder; one that is incomplete, damaged, of another kind, or of pickles is refused."""
    family = _family(folder / INDEX, folder)
    for name in family.loaders:
        _check_weights(folder / name)
    return family


def _family(index: Path, model: str | Path) -> Family:
    """What a pipeline's index says that it is; nothing else of it is read."""
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except FileNotFoundError:
        raise UserError(f"model: {model} has no {INDEX}, so it is no diffusers pipeline") from None
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"model: {index} is damaged: {error}") from None
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise UserError(f"model: {model} is a {kind}; supported: {SUPPORTED}")
    return family


def _check_weights(folder: Path) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(file.name for ending in ("*.bin", "*.ckpt", "*.pt", "*.pth") for file in folder.glob(ending))
        if pickles:
            remedy = "convert it with safetensors' convert tool, or use a repository that ships safetensors"
            raise UserError(f"model: {folder / pickles[0]} is a pickle, which can run code; {remedy}")
        raise UserError(f"model: {folder} holds no *.safetensors weights")
    for file in weights:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"model: {file} is damaged: {error}; download or copy it again") from None


def load_pipeline(folder: Path, safety_checker: bool = True) -> Any:
    """The pipeline of a checked folder in float32, frozen, without a progress bar.

    ``safety_checker=False`` leaves that part on the disk, where the pipeline has one: 1.2 GB in Stable Diffusion 1.5.
    """
    family = check_pipeline(folder)
    given = {**family.fixed, **({} if safety_checker else family.left_out)}
    try:
        parts = {name: _load_whole(folder / name, kind) for name, kind in family.loaders.items()}
        pipeline = family.pipeline.from_pretrained(
            folder, **parts, **given, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"model: {folder} cannot be loaded: {error}") from None
    pipeline.set_progress_bar_config(disable=True)
    for module in parts.values():
        module.requires_grad_(False).eval()
    return pipeline


def weighted_parts(pipeline: Any) -> dict[str, Any]:
    """The parts of a pipeline that a family loads, by name: the UNet, the autoencoder, one or two text encoders."""
    return {name: getattr(pipeline, name) for name in FAMILIES[type(pipeline).__name__].loaders}


def text_encoders(pipeline: Any) -> dict[str, Any]:
    """One or two, by name."""
    return {name: part for name, part in weighted_parts(pipeline).items() if name.startswith("text_encoder")}


def _load_whole(folder: Path, kind: Any) -> Any:
    """A part of the pipeline; weights that lack a tensor are refused, which diffusers would fill with noise."""
    model, report = kind.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"]:
        raise UserError(f"model: {folder} is damaged: its weights lack {sorted(report['missing_keys'])[0]}")
    return model


def unknown_words(pipeline: Any, prompts: list[str]) -> list[str]:
    """Prompts with a word that a tokenizer does not know; byte-level tokenizers know every word."""
    tokenizers = [getattr(pipeline, name.replace("text_encoder", "tokenizer")) for name in text_encoders(pipeline)]
    return [prompt for prompt in prompts if any(_is_strange(prompt, tokenizer) for tokenizer in tokenizers)]


def _is_strange(prompt: str, tokenizer: Any) -> bool:
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id):
        return False
    return unknown in tokenizer(prompt).input_ids
