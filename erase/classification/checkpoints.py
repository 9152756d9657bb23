"""Stored weights: what kind they are, whether they fit, and how the pictures that they know were normalised."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from erase.classification.images import Normalise
from erase.classification.model_settings import PICKLES, ModelSettings, pickled
from erase.config import build as read_settings
from erase.errors import UserError, refuse
from erase.provenance import read_json

DESCRIPTION, WEIGHTS = "classifier.json", "model.safetensors"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
"""transformers' description of a network, and of how pictures are made ready for it."""
KEY = "model.checkpoint"
WORDNET = re.compile(r"n\d{8}")


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


def described(place: Path) -> Path | None:
    """The folder of a classifier that a run has saved, given by itself or by its weights; ``None``: it is none."""
    folder = place.parent if place.name == WEIGHTS and not place.is_dir() else place
    return folder if (folder / DESCRIPTION).is_file() else None


def describe(folder: Path, key: str = "classifier") -> Description:
    """What a saved classifier's folder says of it."""
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


def saved_classes(folder: Path) -> dict[int, str]:
    """The classes' names by their numbers."""
    return dict(enumerate(describe(folder, KEY).classes))


def read_weights(file: Path, key: str) -> dict[str, Tensor]:
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


def checkpoint_weights(settings: ModelSettings, classes: int, channels: int) -> dict[str, Tensor]:
    """The tensors of a saved classifier, which must say the same as the settings and the data, or of a bare file."""
    place = settings.checkpoint or Path()
    folder = described(place)
    if folder is None and place.is_dir():
        hint = f"; a transformers model needs `source: transformers` and `architecture: {place}`"
        there = f"{KEY}: {place} is no saved classifier: it has no {DESCRIPTION}"
        raise UserError(there + (hint if (place / CONFIG).is_file() else ""))
    if folder is None:
        return read_weights(place, KEY)
    said = describe(folder, KEY)
    then = (said.settings.source, said.settings.architecture, said.settings.stem, len(said.classes), said.channels)
    now = (settings.source, settings.architecture, settings.stem, classes, channels)
    names = ("source", "architecture", "stem", "classes", "channels")
    refuse(
        f"{KEY}: {place} was made with {name} {there}; found {here} here"
        for name, there, here in zip(names, then, now, strict=True)
        if there != here
    )
    return read_weights(folder / WEIGHTS, KEY)


def transformers_folder(settings: ModelSettings) -> Path | None:
    """The folder of a checkpoint that transformers has saved, given by itself, its weights or its Hub id.

    ``None``: the checkpoint is none. It must be the settings' architecture too, so that a network drawn anew, such as
    the retrained reference, is of the same kind.
    """
    place = settings.checkpoint
    if settings.source != "transformers" or place is None or described(place) is not None:
        return None
    named = place.parent if place.name == WEIGHTS and (place.parent / CONFIG).is_file() else place
    if named.is_file() or (named.is_dir() and not (named / CONFIG).is_file()) or named.suffix == ".safetensors":
        return None
    if named.resolve() != Path(settings.architecture).resolve():
        if not named.exists():
            raise UserError(f"{KEY}: {place}: there is no such file or folder")
        raise UserError(
            f"model.architecture: found {settings.architecture}; {KEY} {place} is a transformers model, and networks "
            "drawn anew must be of its kind: give its folder, or its Hub id, as the architecture too"
        )
    return named if named.is_dir() else _fetched(str(named), settings.revision)


def _fetched(name: str, revision: str | None) -> Path:
    """A model of the Hub in the local cache: settings and safetensors, nothing else."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise UserError(f"{KEY}: {name} is not here, and cannot be fetched from the Hub: {error}") from None


def checkpoint_normalise(settings: ModelSettings, otherwise: Normalise) -> Normalise:
    """How pictures were normalised for the checkpoint: as it says itself, or ``otherwise`` where it does not."""
    place = settings.checkpoint
    if place is None:
        return otherwise
    saved, foreign = described(place), transformers_folder(settings)
    if saved is not None:
        return describe(saved, KEY).normalise
    if foreign is None or not (foreign / PROCESSOR).is_file():
        return otherwise
    return processor_normalise(read_json(foreign / PROCESSOR, KEY), otherwise, foreign / PROCESSOR)


def processor_normalise(processor: Mapping[str, Any], otherwise: Normalise, file: Path) -> Normalise:
    """The part of transformers' image processor that a classifier needs: (r x - o - mean) / std of a pixel x.

    r is ``rescale_factor``, o 1 with ``rescale_offset`` and else 0. Sizes are the data's own.
    """
    channels, mean, std = len(otherwise.mean), 0.0, 1.0
    if processor.get("do_normalize", True):
        if processor.get("image_mean") is None or processor.get("image_std") is None:
            return otherwise
        mean, std = processor["image_mean"], processor["image_std"]
    try:
        factor = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        means, deviations = _of_channels(mean, channels), _of_channels(std, channels)
    except (TypeError, ValueError) as error:
        raise UserError(f"{KEY}: {file} does not fit to pictures of {channels} channels: {error}") from None
    if factor <= 0 or min(deviations) <= 0:
        raise UserError(f"{KEY}: {file} scales pixels by {factor / 255:g} and divides by {std}; both must be above 0")
    offset = 1.0 if processor.get("rescale_offset") else 0.0
    return Normalise(tuple((m + offset) / factor for m in means), tuple(s / factor for s in deviations))


def _of_channels(values: Any, channels: int) -> tuple[float, ...]:
    found = (float(values),) * channels if isinstance(values, int | float) else tuple(map(float, values))
    if len(found) != channels:
        raise ValueError(f"it has numbers for {len(found)}")
    return found


def check_labels(labels: Mapping[int, str], classes: Sequence[str], place: Path) -> None:
    """Refuses a network whose classes have other names than the data's, but where a name says nothing.

    That is transformers' ``LABEL_0``, a class's own number as the network's word for it, and WordNet's numbers, which
    ImageNet's data have where its networks have words.
    """
    named = {own: label for own, label in labels.items() if own < len(classes)}
    refuse(
        f"{KEY}: {place} knows {label!r} as its class {own}, which is {classes[own]!r} in the data; give the data's "
        "classes the network's order and names, or the network's id2label theirs"
        for own, label in sorted(named.items())
        if label.casefold() != classes[own].casefold()
        and label not in (f"LABEL_{own}", str(own))
        and not any(WORDNET.fullmatch(name) for name in (label, classes[own]))
    )
