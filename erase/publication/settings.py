"""The settings of `erase publish`, and what can be refused before anything is written or sent."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT, Place
from erase.errors import UserError, collect, refuse
from erase.provenance import check_writable, read_json
from erase.publication.destination import Destination, check_destination
from erase.publication.evidence import Evidence, read_evidence
from erase.publication.formats import available
from erase.publication.run_folder import RunFolder, open_run
from erase.training.output import PROVENANCE

Format = Literal["diffusers", "lora", "kohya", "delta", "unet"]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Publication:
    """Publishes an erased model with its evidence: weights, card, audit, provenance; in one commit on the Hub."""

    run: Place
    """folder of a finished `erase train`; may stand without `--run`: `erase publish runs/star`"""
    repo_id: Annotated[str, Field(min_length=1)]
    """the repository on the Hub, OWNER/NAME; made if absent"""
    private: bool = False
    """a repository that is made is private; one that is there and public is refused"""
    create_pr: bool = False
    """open a pull request in place of a commit; for repositories of others"""
    revision: str | None = None
    """branch to commit to, made if absent; default: main"""
    replace: bool = False
    """take the repository's other files out in the same commit; without this, one that holds others is refused"""
    formats: tuple[Format, ...] = ()
    """further formats, each in a folder of its own below `formats/`. A full run: diffusers, delta (changed tensors
    alone), unet (state dict); a LoRA run also lora and kohya (A1111, ComfyUI). The root always holds the run's own:
    the whole pipeline, or the LoRA weights in diffusers' keys"""
    audit: Place | None = None
    """folder of an `erase audit` of this run; default: `<run>-audit` or `<run>/audit`, if there is one;
    one of several, in folders below these, must be named"""
    license: Annotated[str, Field(pattern=r"^[\w.+-]+$")] | None = None
    """licence of the result, as the Hub writes it, such as openrail++; default: the base's, from its card"""
    before_after: bool = True
    """show pictures of the audit in the card; never where the metric `nudity` was asked, or an erased concept names it
    (nude, naked, nsfw, ...)"""
    local_dir: Place | None = None
    """write the repository to this folder, and send nothing"""
    overwrite: bool = False
    """replace a `local_dir` of an earlier publication"""


@plain_dataclass(frozen=True)
class PublicationPlan:
    """A publication whose settings have been found good."""

    settings: Publication
    run: RunFolder
    made: dict[str, Any]
    """The run's provenance."""
    formats: tuple[str, ...]
    """The first is the root's."""
    evidence: Evidence | None

    @property
    def to(self) -> Destination:
        """Where it goes."""
        given = self.settings
        return Destination(given.repo_id, given.private, given.create_pr, given.revision, given.replace)


def plan_publication(settings: Publication) -> PublicationPlan:
    """All that can be refused without the Hub is, at once; writes nothing."""
    problems: list[str] = []
    to = Destination(settings.repo_id, settings.private, settings.create_pr, settings.revision, settings.replace)
    collect(problems, lambda: check_destination(to))
    if settings.local_dir is not None:
        collect(problems, lambda: check_local_dir(settings))
    run = collect(problems, lambda: open_run(settings.run))
    formats = collect(problems, lambda: formats_of(run, settings)) if run else None
    made = collect(problems, lambda: read_json(settings.run / PROVENANCE, "run")) if run else None
    evidence = collect(problems, lambda: read_evidence(run, settings.audit)) if run else None
    refuse(problems)
    if run is None or made is None or formats is None:
        raise UserError("the publication has no plan")
    return PublicationPlan(settings, run, made, formats, evidence)


def formats_of(run: RunFolder, settings: Publication) -> tuple[str, ...]:
    """The root's format, and the others; one that the run cannot have is refused."""
    there, root = available(settings.run), "lora" if run.adapter else "diffusers"
    refuse(
        f"formats: {name} cannot be made of {settings.run}, which moved the UNet's weights themselves: it has no "
        f"adapter; possible: {', '.join(there)}"
        for name in settings.formats
        if name not in there
    )
    return tuple(dict.fromkeys((root, *settings.formats)))


def check_local_dir(settings: Publication) -> None:
    """Refuses a folder that holds something else, or what is to be published."""
    folder = settings.local_dir
    if folder is None:
        return
    check_writable(folder, "local_dir")
    if settings.run.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"local_dir: {folder} holds the run {settings.run} itself; give another")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"local_dir: {folder} holds the working directory, and would be replaced whole; give another")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not settings.overwrite:
        raise UserError(f"local_dir: {folder} is not empty; give another, or --overwrite")
    if not (folder / PROVENANCE).is_file() or not (folder / "README.md").is_file():
        raise UserError(f"local_dir: {folder} is no earlier publication; it is not overwritten; give another")
