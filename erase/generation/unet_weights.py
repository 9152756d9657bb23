"""Tensors of a UNet, put in place of a pipeline's: all of them, or the changed ones alone, as ESD and UCE ship them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from erase.errors import UserError

TENSORS = "erase.tensors"
"""Key of a file's metadata: a JSON list of the tensors that belong to it, so that a lost one is missed."""
TOP = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.", "up_blocks.", "conv_norm_out.", "conv_out.")
"""How diffusers' names of a UNet's tensors start."""
WHOLE = ("conv_in.", "conv_norm_out.", "attn2.")
"""What only a whole UNet has together: of ESD's selections, none takes the norms, and some leave out `attn2`."""


def is_unet_tensor(name: str) -> bool:
    """Whether a name is one that diffusers gives to a UNet's tensor."""
    return name.startswith(TOP)


def check_declared(file: Path, names: Iterable[str], metadata: Mapping[str, str]) -> None:
    """Refuses a file that has lost tensors which it says to hold, or won others; one that says nothing passes."""
    if TENSORS not in metadata:
        return
    differing = sorted(set(json.loads(metadata[TENSORS])) ^ set(names))
    if differing:
        raise UserError(f"{file} is damaged: it does not hold the tensors that it was written with: {differing[0]}")


def read_names(file: Path) -> list[str]:
    """The names of a file's tensors; its own list of them, where it has one, must agree."""
    try:
        with safe_open(file, "pt") as weights:
            names, metadata = list(weights.keys()), weights.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged: {error}; download or copy it again") from None
    check_declared(file, names, metadata)
    return names


def put_unet(unet: Any, file: Path) -> None:
    """Replaces the UNet's tensors by the file's, in the UNet's dtype.

    A tensor without a place in the UNet, or of another shape, is refused by its name; so is a file that holds a whole
    UNet but for some tensors, or that has lost one of those it lists.
    """
    names = read_names(file)
    try:
        result = unet.load_state_dict(load_file(file), strict=False)
    except RuntimeError as error:
        raise UserError(f"{file} does not fit the model: {error}; give the model that it was made from") from None
    if result.unexpected_keys:
        raise UserError(
            f"{file} does not fit the model: the UNet has no place for {len(result.unexpected_keys)} of its "
            f"{len(names)} tensors, such as {sorted(result.unexpected_keys)[0]}; give the model that it was made from"
        )
    if result.missing_keys and all(any(part in name for name in names) for part in WHOLE):
        raise UserError(
            f"{file} is incomplete: it holds a whole UNet but for {len(result.missing_keys)} tensors, such as "
            f"{sorted(result.missing_keys)[0]}; download or copy it again"
        )
    unet.requires_grad_(False).eval()
