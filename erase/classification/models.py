"""Image classifiers: made by name, saved with all that is needed to use them, and loaded again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from erase.classification.images import Normalise
from erase.classification.model_settings import PICKLES, ModelSettings, pickled
from erase.classification.networks import Logits, build, copy_of_weights, linear_head, load_strictly
from erase.config import build as read_settings
from erase.config import dump
from erase.errors import UserError, refuse
from erase.provenance import write_json

DESCRIPTION, WEIGHTS = "classifier.json", "model.safetensors"

__all__ = ["Description", "ModelSettings", "head", "load_classifier", "make_model", "save_classifier"]


@dataclass(frozen=True)
class Description:
    """What ``classifier.json`` says of the weights beside it."""

    settings: ModelSettings
    classes: tuple[str, ...]
    channels: int
    normalise: Normalise
    extra: Mapping[str, Any]
    """What the writer added: the splits' hashes, the seed, the run."""
    config: Mapping[str, Any] | None = None
    """transformers' configuration of the network; the others are known by their name."""


def make_model(settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    """A network from ``[b, channels, h, w]`` normalised pictures to ``[b, classes]`` logits.

    Random weights are drawn from torch's global generator: seed it before. Pictures are normalised by
    :class:`Normalise` of the splits, whatever the network's own processor would do.
    """
    refuse(settings.problems())
    network = build(settings, classes, channels)
    if settings.checkpoint is not None:
        load_strictly(network, _weights_of(settings, classes, channels), f"model.checkpoint: {settings.checkpoint}")
    return network


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
    found = _describe(folder)
    plain = ModelSettings(found.settings.source, found.settings.architecture, found.settings.stem)
    model = build(plain, len(found.classes), found.channels, None if found.config is None else dict(found.config))
    load_strictly(model, _read(folder / WEIGHTS, "classifier"), f"classifier: {folder}")
    return model.eval(), found


def head(model: nn.Module) -> tuple[str, nn.Linear]:
    """The last layer, which gives the logits, and its name in the model; refused where that is no linear layer."""
    found = linear_head(model.network if isinstance(model, Logits) else model)
    if not isinstance(found, nn.Linear):
        kind = "no module" if found is None else f"a {type(found).__name__}"
        raise UserError(f"model.architecture: the last layer must be linear; that of {type(model).__name__} is {kind}")
    return next(name for name, module in model.named_modules() if module is found), found


def _weights_of(settings: ModelSettings, classes: int, channels: int) -> dict[str, Tensor]:
    """A checkpoint's tensors; a folder's description must say the same as the settings and the data."""
    place = settings.checkpoint
    if place is None or not place.is_dir():
        return _read(place or Path(), "model.checkpoint")
    found = _describe(place, "model.checkpoint")
    there = (found.settings.source, found.settings.architecture, found.settings.stem, len(found.classes))
    here = (settings.source, settings.architecture, settings.stem, classes)
    names = ("source", "architecture", "stem", "classes", "channels")
    refuse(
        f"model.checkpoint: {place} was made with {name} {then}; found {now} here"
        for name, then, now in zip(names, (*there, found.channels), (*here, channels), strict=True)
        if then != now
    )
    return _read(place / WEIGHTS, "model.checkpoint")


def _describe(folder: Path, key: str = "classifier") -> Description:
    try:
        content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return Description(
            settings=read_settings(ModelSettings, content["settings"]),
            classes=tuple(content["classes"]),
            channels=content["channels"],
            normalise=Normalise(tuple(content["normalise"]["mean"]), tuple(content["normalise"]["std"])),
            extra=content["extra"],
            config=content["config"],
        )
    except FileNotFoundError:
        raise UserError(f"{key}: {folder} is no saved classifier: it has no {DESCRIPTION}") from None
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{key}: {folder / DESCRIPTION} is damaged: {error}") from None


def _read(file: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; a pickle is never opened."""
    if file.suffix in PICKLES:
        raise UserError(pickled(key, file))
    if not file.is_file():
        pickles = sorted(other for other in file.parent.glob("*") if other.suffix in PICKLES)
        raise UserError(pickled(key, pickles[0]) if pickles else f"{key}: {file}: there is no such file")
    try:
        return load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{key}: {file} cannot be read as safetensors: {error}") from None
