"""``erase.load``: an erased model in any of the formats that it is shipped in, whoever made it."""

from __future__ import annotations

import os
from typing import Any

import torch

from erase import embedded
from erase.diffusion.foreign import check_foreign, check_pickles
from erase.diffusion.pipelines import find_pipeline, load_pipeline, weighted_parts
from erase.errors import UserError
from erase.generation.weights import find_weights, put_weights


def load(
    path: str | os.PathLike[str],
    base: str | os.PathLike[str] = embedded.NAME,
    revision: str | None = None,
    device: str | torch.device | None = None,
    *,
    base_revision: str | None = None,
) -> Any:
    """The erased model as diffusers' own pipeline in float32, as ``from_pretrained`` would give it.

    Args:
        path: a diffusers folder; weights for the ``base``, a *.safetensors file or a folder with one: LoRA in
            diffusers' keys or kohya's, changed tensors as ESD and UCE ship them, a UNet's state dict; or the Hub id of
            a whole pipeline or of LoRA weights.
        base: the model that weights are put into: ``shapes`` (embedded), a diffusers folder or a Hub id. Not used for
            a whole pipeline.
        revision: branch, tag or commit, where ``path`` is a Hub id.
        device: where the pipeline goes; default: it stays on the CPU.
        base_revision: branch, tag or commit, where ``base`` is a Hub id.

    Raises:
        UserError: a tensor is missing or has no place, by its name; weights are pickles, or a folder comes with code of
            its own, which could do anything when loaded.
    """
    name = os.fspath(path)
    weights = find_weights(name, revision)
    if weights is None:
        pipeline = load_whole(name, revision, "revision")
    else:
        pipeline = load_whole(os.fspath(base), base_revision, "base_revision")
        put_weights(pipeline, weights)
    for part in weighted_parts(pipeline).values():
        part.requires_grad_(True)  # as from_pretrained: torch's kernels for frozen weights round apart
    return pipeline if device is None else pipeline.to(device)


def load_whole(name: str, revision: str | None, key: str) -> Any:
    """A whole pipeline, after all checks."""
    if revision is not None and (name == embedded.NAME or os.path.exists(name)):
        raise UserError(f"{key}: {name} is on this machine and has none; found {revision}; leave it out")
    folder = find_pipeline(name, revision)
    check_foreign(folder)
    check_pickles(folder)
    return load_pipeline(folder)
