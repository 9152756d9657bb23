"""Finds, checks and loads a Stable Diffusion pipeline: a local folder or a Hub id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel

from erase import embedded
from erase.errors import UserError

LOADERS: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
WEIGHT_FOLDERS = tuple(LOADERS)
SUPPORTED = ("StableDiffusionPipeline",)


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
        found = StableDiffusionPipeline.download(model, revision=revision, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise UserError(f"model: {model!r} is no folder here and could not be had from the Hub: {error}") from None
    return Path(found)


def check_pipeline(folder: Path) -> None:
    """Refuses a folder that is incomplete, damaged, of another kind, or whose weights are pickles."""
    index = folder / "model_index.json"
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except FileNotFoundError:
        raise UserError(f"model: {folder} has no model_index.json, so it is no diffusers pipeline") from None
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"model: {index} is damaged: {error}") from None
    if kind not in SUPPORTED:
        raise UserError(f"model: {folder} is a {kind}; supported: {', '.join(SUPPORTED)}")
    for name in WEIGHT_FOLDERS:
        _check_weights(folder / name)


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


def load_pipeline(folder: Path, safety_checker: bool = True) -> StableDiffusionPipeline:
    """The pipeline of a checked folder in float32, frozen, without a progress bar.

    ``safety_checker=False`` leaves that part on the disk, where the pipeline has one: 1.2 GB in Stable Diffusion 1.5.
    """
    check_pipeline(folder)
    left_out: dict[str, Any] = {} if safety_checker else {"safety_checker": None, "requires_safety_checker": False}
    try:
        parts = {name: _load_whole(folder / name) for name in WEIGHT_FOLDERS}
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, **parts, **left_out, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"model: {folder} cannot be loaded: {error}") from None
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False).eval()
    return pipeline


def _load_whole(folder: Path) -> Any:
    """A part of the pipeline; weights that lack a tensor are refused, which diffusers would fill with noise."""
    model, report = LOADERS[folder.name].from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"]:
        raise UserError(f"model: {folder} is damaged: its weights lack {sorted(report['missing_keys'])[0]}")
    return model


def unknown_words(pipeline: StableDiffusionPipeline, prompts: list[str]) -> list[str]:
    """Prompts with a word that the tokenizer does not know; byte-level tokenizers know every word."""
    tokenizer = pipeline.tokenizer
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id):
        return []
    return [prompt for prompt in prompts if unknown in tokenizer(prompt).input_ids]
