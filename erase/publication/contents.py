"""What goes into the repository: weights, card, audit, provenance and settings; and nothing of this machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import erase
from erase.errors import UserError
from erase.generation.records import hash_file
from erase.provenance import hash_json, write_json, write_text
from erase.publication.base_model import describe_base
from erase.publication.card import GRID, make_card
from erase.publication.destination import check_names
from erase.publication.evidence import RESULTS, draw_grid
from erase.publication.formats import write_format
from erase.publication.privacy import leaks, scrub_tree
from erase.publication.settings import PublicationPlan
from erase.training.output import CONFIG, PROVENANCE
from erase.training.settings import FREE_ON_RESUME

CARD, FORMATS = "README.md", "formats"
HEADER = 8
"""Bytes of a safetensors file that say how long its header is."""


def prepare_repository(plan: PublicationPlan, folder: Path) -> list[str]:
    """Fills an empty folder with the exact repository; the names of its files, in order.

    Raises:
        UserError: a file that would say a token, a path or the user's name; or one of a kind that must not go up.
    """
    root, *others = plan.formats
    write_format(plan.run.folder, root, folder)
    for name in others:
        write_format(plan.run.folder, name, folder / FORMATS / name)
    evidence, made = plan.evidence, plan.made
    pairs = evidence.pairs() if evidence and plan.settings.before_after else []
    if pairs:
        draw_grid(pairs, folder / GRID)
    if evidence:
        write_json(folder / RESULTS, scrub_tree(evidence.results))
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(scrub_tree(repeatable(made["config"])))))
    base = describe_base(plan.run.base, plan.settings.license)
    card = make_card(plan.settings.repo_id, made, base, plan.formats, evidence, pairs)
    write_text(folder / CARD, f"{str(card).strip()}\n")
    hashes = {name: hash_file(folder / name) for name in names_in(folder)}
    published = {"with": f"erase {erase.__version__}", "formats": list(plan.formats), "files": hashes}
    write_json(folder / PROVENANCE, scrub_tree(made) | {"published": published})
    names = names_in(folder)
    check_names(folder, names)
    check_private(folder, names)
    return names


def repeatable(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that shape the result; those of one machine or one go, such as its folders, are a reader's own."""
    kept = {key: value for key, value in config.items() if f"{prefix}{key}" not in FREE_ON_RESUME}
    return {key: repeatable(value, f"{key}.") if isinstance(value, dict) else value for key, value in kept.items()}


def names_in(folder: Path) -> list[str]:
    """Every file below, by its path in the repository."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())


def summarize(plan: PublicationPlan, folder: Path, names: list[str]) -> str:
    """The commit's summary: what, and of which files, so that the same publication is known again."""
    digest = hash_json({name: hash_file(folder / name) for name in names})
    return f"Erase {', '.join(scrub_tree(plan.made['erased']))} ({digest[:12]})"


def check_private(folder: Path, names: list[str]) -> None:
    """Refuses a text, or the header of a file of weights, that says something of this machine."""
    for name in names:
        found = leaks(_words(folder / name))
        if found:
            raise UserError(f"{name}: it would publish {', '.join(found)}; take that out of the run's own files")


def _words(file: Path) -> str:
    if file.suffix == ".png":
        return ""
    if file.suffix != ".safetensors":
        return file.read_text(encoding="utf-8")
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(HEADER))
        noted: dict[str, Any] = json.loads(stream.read(length)).get("__metadata__", {})
    return json.dumps(noted, ensure_ascii=False)
