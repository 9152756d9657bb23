"""Weights that are no whole pipeline: LoRA, changed tensors or a UNet's state dict, found and put into a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from erase import embedded
from erase.diffusion.foreign import INDEX, PICKLES
from erase.errors import UserError
from erase.generation.lora import NAME, find_lora, fold_lora, is_lora
from erase.generation.unet_weights import put_unet

WEIGHTS = (".safetensors", *PICKLES)
"""Endings of files that are taken for weights, to be read or refused."""


def is_weights(path: Path) -> bool:
    """Whether a path names weights and no whole pipeline: a file, or a folder of files without a pipeline's index."""
    if path.is_file():
        return True
    return path.is_dir() and not (path / INDEX).exists() and any(file.suffix in WEIGHTS for file in path.iterdir())


def find_weights(name: str, revision: str | None = None, key: str = "revision") -> Path | None:
    """The file or folder of weights that a name means, downloaded if it is a Hub id; ``None`` for anything else.

    A repository on the Hub holds a whole pipeline if it has an index, else LoRA weights under diffusers' name. ``key``
    is the setting that gives the revision; with a name on this machine it is refused.
    """
    path = Path(name).expanduser()
    if path.exists() or name == embedded.NAME:
        if revision is not None:
            raise UserError(f"{key}: {name} is on this machine and has none; found {revision}; leave it out")
        return path if is_weights(path) else None
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    for file in (INDEX, NAME):
        try:
            found = Path(hf_hub_download(name, file, revision=revision))
        except (HfHubHTTPError, HFValidationError, OSError):
            continue  # not there, or not to be had: whoever asks for a pipeline by this name says which
        return found if file == NAME else None
    return None


def put_weights(pipeline: Any, path: Path) -> None:
    """Folds LoRA weights into a pipeline, or replaces its UNet's tensors; every tensor must have its place."""
    file = find_lora(path)
    if is_lora(file):
        fold_lora(pipeline, file)
    else:
        put_unet(pipeline.unet, file)
