"""The erased UNet under diffusers' names: the changed tensors alone, or its whole state dict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from erase.diffusion.pipelines import load_pipeline, weighted_parts
from erase.errors import UserError
from erase.generation.lora import fold_lora
from erase.generation.unet_weights import TENSORS
from erase.publication.run_folder import RunFolder

DELTA, UNET = "unet_changed.safetensors", "unet.safetensors"


def write_delta(run: RunFolder, folder: Path) -> None:
    """The tensors that differ from the base's in any bit, as ESD and UCE ship theirs.

    ``pipeline.unet.load_state_dict(load_file(path), strict=False)`` puts them into the base.
    """
    before, after = _both(run)
    changed = {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    if not changed:
        raise UserError(f"format: the UNet of {run.folder} is its base's, bit for bit: there is no delta")
    save_tensors(changed, folder / DELTA)


def write_unet(run: RunFolder, folder: Path) -> None:
    """Every tensor of the UNet: ``unet.load_state_dict(load_file(path))``.

    UnlearnDiffAtk's ``target_ckpt`` is this mapping as a pickle, which is not written here: ``torch.save`` makes it.
    """
    save_tensors(_both(run)[1], folder / UNET)


def save_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors with a list of their names, by which a reader misses one that is lost."""
    declared = {TENSORS: json.dumps(sorted(tensors))}
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, file, {"format": "pt", **declared, **(metadata or {})})


def _both(run: RunFolder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The UNet's tensors before and after; a run that moved another part as well is refused."""
    base = load_pipeline(run.find_base())
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    if run.adapter is not None:
        fold_lora(base, run.adapter)
        return before, base.unet.state_dict()
    erased = load_pipeline(run.folder)
    others = [part for part in weighted_parts(base) if part != "unet"]
    moved = [part for part in others if not _alike(getattr(base, part), getattr(erased, part))]
    after: dict[str, Tensor] = erased.unet.state_dict()
    if moved or before.keys() != after.keys():
        raise UserError(
            f"format: {run.folder} differs from its base in {moved[0] if moved else 'the layers of its UNet'} too, "
            "which tensors of the UNet cannot say; take diffusers"
        )
    return before, after


def _alike(left: Any, right: Any) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
