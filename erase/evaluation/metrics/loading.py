"""What every judge needs: the device it runs on, the hash of its weights, and weights from safetensors alone."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from erase.errors import UserError


def device() -> torch.device:
    """Where judges run: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def library(name: str) -> dict[str, str]:
    """A library and its version, for an identity."""
    return {"library": name, "version": version(name)}


@torch.no_grad()
def hash_weights(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values: the same wherever the weights came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_weights_file(source: str, key: str, remedy: str) -> Path:
    """A ``.safetensors`` file, or ``model.safetensors`` of a Hub repository ``owner/name``; its header must be whole.

    ``remedy`` says how such a file is made; a pickle is never opened.
    """
    file = Path(source).expanduser()
    if file.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"):
        raise UserError(f"{key}: {source} is a pickle, which can run code; {remedy}")
    try:
        if file.suffix != ".safetensors":
            if source.count("/") != 1 or source.startswith((".", "/", "~")):
                raise UserError(f"{key}: {source!r} is no .safetensors file and no Hub id (owner/name); {remedy}")
            file = Path(hf_hub_download(source, "model.safetensors"))
        with safe_open(file, "pt"):
            return file
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{key}: {source} cannot be read: {error}; {remedy}") from None


def read_weights(source: str, key: str, remedy: str) -> dict[str, Tensor]:
    """The tensors of :func:`find_weights_file`."""
    return load_file(find_weights_file(source, key, remedy))


def load_exactly(module: Any, weights: dict[str, Tensor], key: str, source: str) -> None:
    """Fills the module; weights that lack a tensor, or have another shape or one too many, are refused."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{key}: {source} holds other weights than are needed: {error}") from None
