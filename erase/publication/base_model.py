"""What is known of the base that a run started from: its address, its commit and its licence. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import hf_hub_download, metadata_load, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from erase import embedded
from erase.diffusion.foreign import INDEX
from erase.provenance import hash_folder
from erase.publication.privacy import scrub

CARD = "README.md"
OWN_LICENCE = "apache-2.0"
"""Of the embedded model: the package's."""


@dataclass(frozen=True)
class BaseModel:
    """The model before the erasure, as the card names it."""

    name: str
    hub_id: str | None
    """``None`` for the embedded model and for a folder of this machine."""
    revision: str | None
    """The commit, if the local copy is known to be of it; else what the run was told."""
    hash: str
    licence: Mapping[str, str]
    """``license``, and ``license_name`` and ``license_link`` where it has them; empty if it is not known."""

    @property
    def title(self) -> str:
        """How a reader knows it."""
        if self.is_embedded:
            return "Shapes World, the model that comes with erase"
        return self.hub_id or f"{Path(self.name).name}, a model that is not on the Hub"

    @property
    def is_embedded(self) -> bool:
        """Whether it comes with this package."""
        return self.name == embedded.NAME


def describe_base(base: Mapping[str, Any], licence: str | None) -> BaseModel:
    """The base of a provenance; ``licence`` is what the user says of the result, and goes before what is found."""
    model, revision, known = str(base["model"]), base["revision"], str(base["hash"])
    local = base.get("is_folder") or Path(model).expanduser().is_dir()
    hub_id = None if local or model == embedded.NAME or model.count("/") != 1 else model
    found = {"license": licence} if licence else _licence(model, hub_id, revision)
    return BaseModel(scrub(model), hub_id, _commit(hub_id, revision, known) or revision, known, found)


def _commit(hub_id: str | None, revision: str | None, known: str) -> str | None:
    """The commit of the copy in the Hub's cache, if that copy is the base bit for bit."""
    index = try_to_load_from_cache(hub_id, INDEX, revision=revision) if hub_id else None
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    return folder.name if hash_folder(folder) == known else None


def _licence(model: str, hub_id: str | None, revision: str | None) -> dict[str, str]:
    """From the base's own card; empty where there is none, or it says nothing."""
    if model == embedded.NAME:
        return {"license": OWN_LICENCE}
    try:
        file = hf_hub_download(hub_id, CARD, revision=revision) if hub_id else Path(model).expanduser() / CARD
        card = metadata_load(file) or {}
    except (OSError, ValueError, HfHubHTTPError, HFValidationError, httpx2.TransportError):
        return {}
    keys = ("license", "license_name", "license_link")
    return {key: str(card[key]) for key in keys if card.get(key) and card.get("license")}
