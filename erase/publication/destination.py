"""Where on the Hub a publication goes, and what is known once it is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from erase.errors import UserError

ENDINGS = (".safetensors", ".json", ".txt", ".md", ".png", ".yaml")
"""What is uploaded: nothing that can run code when it is read."""
REVISION = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$))[\w][\w./-]*(?<![./])")
READERS = ("read", "no_access")


@dataclass(frozen=True)
class Destination:
    """A repository of models, and how it is written to."""

    repo_id: str
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    replace: bool = False

    @property
    def owner(self) -> str:
        """The user or organization."""
        return self.repo_id.split("/")[0]


@dataclass(frozen=True)
class Published:
    """What the Hub made of an upload."""

    repo_id: str
    commit: str
    commit_url: str
    pull_request: str | None = None

    @property
    def url(self) -> str:
        """What to look at."""
        return self.pull_request or self.commit_url


def check_destination(to: Destination) -> None:
    """Refuses a name that is none of a repository, a branch that git would not take, and what contradicts itself."""
    try:
        validate_repo_id(to.repo_id)
    except HFValidationError as error:
        raise UserError(f"repo_id: found {to.repo_id!r}; {error}") from None
    if to.repo_id.count("/") != 1:
        raise UserError(f"repo_id: found {to.repo_id!r}; must be OWNER/NAME, such as me/sd-without-star")
    if to.revision is not None and not REVISION.fullmatch(to.revision):
        raise UserError(f"revision: found {to.revision!r}; must be the name of a branch, such as main")
    if to.create_pr and to.revision not in (None, "main"):
        raise UserError(f"revision: found {to.revision!r} with create_pr; a pull request is made to main; leave it out")


def check_names(folder: Path, names: list[str]) -> None:
    """Refuses a file that must not go up: outside of the folder, hidden, or of a kind that is not known to be safe."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or any(part.startswith(".") for part in path.parts) or "\\" in name:
            raise UserError(f"{name!r}: is no plain path inside of the repository; it is not uploaded")
        if path.suffix not in ENDINGS:
            raise UserError(f"{name!r}: only {', '.join(ENDINGS)} are uploaded; other kinds can run code")
        file = folder / name
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{name!r}: is no file of {folder}; links out of it are not followed")


def may_write(who: Mapping[str, Any], to: Destination) -> bool:
    """Whether what the Hub says of a token (``whoami``) lets it write to a repository that is not there yet."""
    access = who.get("auth", {}).get("accessToken", {})
    if access.get("role") == "read":
        return False
    if access.get("role") == "fineGrained" and "fineGrained" in access:
        places = [one["entity"].get("name") for one in _writable(access["fineGrained"])]
        return to.owner in places or to.repo_id in places
    organizations = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", ())}
    return to.owner == who["name"] or organizations.get(to.owner, "read") not in READERS


def _writable(grained: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in grained.get("scoped", ()) if "repo.write" in one.get("permissions", ())]
