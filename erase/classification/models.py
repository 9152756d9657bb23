"""Image classifiers: made by name, saved with all that is needed to use them, and loaded again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from erase.classification.checkpoints import (
    DESCRIPTION,
    KEY,
    WEIGHTS,
    Description,
    checkpoint_weights,
    describe,
    described,
    read_weights,
    transformers_folder,
)
from erase.classification.images import Normalise
from erase.classification.model_settings import ModelSettings
from erase.classification.networks import (
    WRAPPER,
    Logits,
    build,
    copy_of_weights,
    linear_head,
    load_strictly,
    with_own_names,
)
from erase.config import dump
from erase.errors import UserError, refuse
from erase.provenance import write_json

__all__ = [
    "DESCRIPTION",
    "WEIGHTS",
    "Description",
    "ModelSettings",
    "head",
    "load_classifier",
    "make_model",
    "save_classifier",
]
OF_NO_NETWORK = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "torch_dtype",
    "transformers_version",
}
"""Entries of transformers' configuration that change nothing of what a network computes."""


def make_model(settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    """A network from ``[b, channels, h, w]`` normalised pictures to ``[b, classes]`` logits.

    Random weights are drawn from torch's global generator: seed it before. Pictures are normalised by
    :class:`Normalise` of the splits, or as a checkpoint's were, see :func:`checkpoint_normalise`.
    """
    refuse(settings.problems())
    foreign = transformers_folder(settings)
    if foreign is not None:
        own = replace(settings, architecture=str(foreign), checkpoint=None, pretrained=True, revision=None)
        return build(own, classes, channels)
    network = build(settings, classes, channels)
    if settings.checkpoint is not None:
        weights, key = checkpoint_weights(settings, classes, channels), f"model.checkpoint: {settings.checkpoint}"
        if isinstance(network, Logits):
            refuse(other_config(network, settings.checkpoint))
        if isinstance(network, Logits) and not any(name.startswith(WRAPPER) for name in weights):
            weights = with_own_names(network, weights, key)
        load_strictly(network, weights, key)
    return network


def other_config(network: Logits, place: Path) -> Iterator[str]:
    """Where transformers' configuration of a saved classifier is not the network's: the same weights compute others."""
    folder = described(place)
    then = (describe(folder, KEY).config if folder else None) or {}
    now = json.loads(json.dumps(network.network.config.to_dict()))
    for name in sorted(then.keys() & now.keys() - OF_NO_NETWORK):
        if then[name] != now[name]:
            rule = "give the architecture that it was made with, or another checkpoint"
            yield f"{KEY}: {place} was made with {name} {then[name]!r}; model.architecture has {now[name]!r}; {rule}"


def save_classifier(
    model: nn.Module,
    settings: ModelSettings,
    folder: Path,
    classes: Sequence[str],
    normalise: Normalise,
    extra: Mapping[str, Any],
) -> None:
    """Writes ``model.safetensors``, then ``classifier.json``, without which the weights are not read.

    What else is in the folder stays; ``extra`` must be JSON.
    """
    config = model.network.config.to_dict() if isinstance(model, Logits) else None
    content = {
        "settings": dump(settings),
        "classes": list(classes),
        "channels": len(normalise.mean),
        "normalise": {"mean": list(normalise.mean), "std": list(normalise.std)},
        "config": config,
        "extra": dict(extra),
    }
    temporary = folder / f".{WEIGHTS}.tmp{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(copy_of_weights(model), temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        (folder / DESCRIPTION).unlink(missing_ok=True)
        temporary.replace(folder / WEIGHTS)
        write_json(folder / DESCRIPTION, content)
    except (OSError, SafetensorError) as error:
        raise UserError(f"output_dir: the classifier could not be written to {folder}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_classifier(folder: Path) -> tuple[nn.Module, Description]:
    """The model, in evaluation mode on the CPU, and what was saved with it."""
    found = describe(folder)
    plain = ModelSettings(found.settings.source, found.settings.architecture, found.settings.stem)
    model = build(plain, len(found.classes), found.channels, None if found.config is None else dict(found.config))
    load_strictly(model, read_weights(folder / WEIGHTS, "classifier"), f"classifier: {folder}")
    return model.eval(), found


def head(model: nn.Module) -> tuple[str, nn.Linear]:
    """The last layer, which gives the logits, and its name in the model; refused where that is no linear layer."""
    found = linear_head(model.network if isinstance(model, Logits) else model)
    if not isinstance(found, nn.Linear):
        kind = "no module" if found is None else f"a {type(found).__name__}"
        raise UserError(f"model.architecture: the last layer must be linear; that of {type(model).__name__} is {kind}")
    return next(name for name, module in model.named_modules() if module is found), found
