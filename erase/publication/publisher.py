"""A publication from settings to a commit; or to a folder, for those without network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from erase.config import build
from erase.errors import UserError
from erase.provenance import new_folder, write_json
from erase.publication.contents import prepare_repository, summarize
from erase.publication.destination import Destination, Published
from erase.publication.evidence import usual_audits
from erase.publication.hub import check_write_access, upload
from erase.publication.settings import Publication, PublicationPlan, plan_publication

RECORD = "published.json"


def publish(settings: Publication) -> Published:
    """Makes the repository and uploads it in one commit, which ``published.json`` of the run records.

    The right to write is looked at before anything is made.
    """
    plan = plan_publication(settings)
    check_write_access(plan.to)
    with _on_disk(plan.run.folder), tempfile.TemporaryDirectory(prefix=".publishing-", dir=plan.run.folder) as place:
        folder = Path(place)
        names = prepare_repository(plan, folder)
        published = upload(folder, names, plan.to, summarize(plan, folder, names))
    record = {"endpoint": constants.ENDPOINT, **vars(published), "revision": settings.revision, "files": names}
    try:
        write_json(plan.run.folder / RECORD, record)
    except OSError as error:
        raise UserError(
            f"published as {published.url}, but {plan.run.folder / RECORD} cannot be written: {error}"
        ) from None
    return published


def check_before_training(run: Path, to: Destination) -> None:
    """What would stop the publication of a run that is yet to be trained into a folder; makes nothing."""
    old = usual_audits(run)
    if old:
        raise UserError(
            f"push_to_hub: {old[0]} is the audit of an earlier run, which is no evidence for a new one; move it"
        )
    check_write_access(to)


def publish_run(run: Path, repo_id: str, **settings: Any) -> Published:
    """Publishes a finished run; ``settings`` are those of `erase publish`."""
    return publish(build(Publication, {"run": str(run), "repo_id": repo_id, **settings}))


def write_repository(plan: PublicationPlan, folder: Path) -> list[str]:
    """The exact repository as a folder, whole or absent; the names of its files."""
    with _on_disk(folder), new_folder(folder) as temporary:
        return prepare_repository(plan, temporary)


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: the repository cannot be prepared there: {error}; free space, or give rights"
        ) from None
