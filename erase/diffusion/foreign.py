"""A diffusers folder of others: refused if loading it would run its code, or if its UNet's tensors do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open

from erase.diffusion.pipelines import INDEX as INDEX
from erase.diffusion.pipelines import check_pipeline
from erase.errors import UserError, refuse
from erase.provenance import read_json

LIBRARIES = ("diffusers", "transformers", "stable_diffusion", None)
"""Where the parts of a Stable Diffusion pipeline come from; the safety checker from `stable_diffusion`."""
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
"""Endings of files that can run code when they are read."""
SHOWN = 3
NOT_RUN = "code of a model's own is not run; give a model of the libraries' classes"


def check_foreign(folder: Path) -> None:
    """All that :func:`check_pipeline` refuses, code of the folder's own, and a UNet that is not its config's.

    Diffusers itself fills a missing tensor with noise and passes over one that it does not know.
    """
    index = read_index(folder)
    refuse([*_own_classes(folder, index), *_own_code(folder, index)])
    check_pipeline(folder)
    _check_unet(folder / "unet")


def check_pickles(folder: Path) -> None:
    """Refuses a pipeline with a part whose weights are pickles and nothing else."""
    for part in parts_of(read_index(folder)):
        files = sorted((folder / part).glob("*"))
        pickles = [file for file in files if file.suffix in PICKLES]
        if pickles and not any(file.suffix == ".safetensors" for file in files):
            raise UserError(
                f"model: {pickles[0]} is a pickle, which can run code; convert it with safetensors' convert tool, "
                f"or take {part} out of {INDEX}"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """What a pipeline is made of; empty where there is no index or a damaged one, as :func:`check_pipeline` says."""
    try:
        return read_json(folder / INDEX, "model")
    except UserError:
        return {}


def parts_of(index: dict[str, Any]) -> list[str]:
    """The parts that are there, each a folder beside the index."""
    return [
        name for name, value in index.items() if isinstance(value, list) and name[:1] != "_" and value[:1] != [None]
    ]


def _own_classes(folder: Path, index: dict[str, Any]) -> list[str]:
    kind, problems = index.get("_class_name"), []
    if isinstance(kind, list):
        problems.append(f"model: {folder} names a pipeline of its own, {kind}; {NOT_RUN}")
    for part in parts_of(index):
        if not part.isidentifier():
            problems.append(f"model: {folder} has a part named {part!r}, which is no name; {INDEX} is damaged")
        if index[part][:1] not in [[library] for library in LIBRARIES]:
            problems.append(f"model: {folder} takes its {part} from {index[part]}; {NOT_RUN}")
    return problems


def _own_code(folder: Path, index: dict[str, Any]) -> list[str]:
    places = [folder, *(folder / part for part in parts_of(index) if part.isidentifier())]
    code = [file for place in places for file in sorted(place.glob("*.py"))]
    settings = [file for place in places for file in sorted(place.glob("*config.json"))]
    mapped = [
        file for file in settings if b'"auto_map"' in file.read_bytes() and "auto_map" in read_json(file, "model")
    ]
    return [f"model: {file} is code of the model's own; {NOT_RUN}" for file in code] + [
        f"model: {file} names code of the model's own (auto_map); {NOT_RUN}" for file in mapped
    ]


def _check_unet(folder: Path) -> None:
    """Names and shapes, from the headers of the files alone."""
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as weights:
                found |= {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"model: {file} is damaged: {error}; download or copy it again") from None
    config = read_json(folder / "config.json", "model")
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise UserError(f"model: {folder / 'config.json'} makes no UNet: {error}") from None
    wanted = {name: list(tensor.shape) for name, tensor in unet.state_dict().items()}
    kinds = {
        "is without": sorted(wanted.keys() - found.keys()),
        "has no place for": sorted(found.keys() - wanted.keys()),
        "has another shape for": sorted(n for n in wanted.keys() & found.keys() if wanted[n] != found[n]),
    }
    refuse(
        f"model: {folder} does not fit its config.json: the UNet {kind} {len(names)} tensors, such as "
        f"{', '.join(names[:SHOWN])}; download or copy it again"
        for kind, names in kinds.items()
        if names
    )
