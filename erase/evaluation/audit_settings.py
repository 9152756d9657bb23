"""The settings of `erase audit`, and what can be refused before a model is loaded or a file written."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase import embedded
from erase.components import STRICT, Place
from erase.errors import UserError, collect, refuse, renamed
from erase.evaluation.judges import JUDGES, judge_problems
from erase.evaluation.metrics import (
    METRICS,
    AnyMetric,
    ClipAccuracy,
    ClipDistance,
    ClipScore,
    ConceptClassifier,
    PixelDistance,
    SetMetrics,
)
from erase.generation.alike import check_alike
from erase.generation.prompts import PromptRow
from erase.generation.settings import Generation, check_generation
from erase.generation.weights import find_weights, is_weights
from erase.provenance import beside

RESULTS, IMAGES = "results.json", "images"
DOMAIN = "concept"
"""Of a target that no column names a domain for."""
SHAPES_DEFAULTS: dict[str, Any] = {"num_inference_steps": 15, "guidance_scale": 4.0, "batch_size": 40}
"""How Shapes World is sampled where the settings say nothing."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Audit:
    """Shows what an erasure removed, what it kept and what suffered; the same command again goes on."""

    base: str = embedded.NAME
    """the model before: `shapes` (embedded), a diffusers folder or a Hub id"""
    base_revision: str | None = None
    """branch, tag or commit, where the base is a Hub id"""
    erased: Annotated[str, Field(min_length=1)]
    """the model after: a diffusers folder such as a run's output, a Hub id, or weights for the base: LoRA, changed
    tensors as ESD and UCE ship them, or a UNet's state dict (a *.safetensors file or a folder with one; of the Hub,
    LoRA under diffusers' name alone)"""
    erased_revision: str | None = None
    """branch, tag or commit, where the erased model is a Hub id"""
    target: Annotated[str, Field(min_length=1)]
    """the concept that should be gone, as the prompts' columns of concepts have it"""
    also_erased: tuple[str, ...] = ()
    """other concepts that went with it: their pictures count neither as forgotten nor as kept"""
    neighbours: tuple[str, ...] = ()
    """concepts of the prompts to look at beside the nearest ones"""
    nearest: Annotated[int, Field(ge=0)] = 5
    """how many of the target's nearest concepts, by their names' CLIP features, are looked at"""
    prompts: str | None = None
    """a CSV with the columns `prompt` and `concept/<domain>`; default for the base `shapes`: its full captions"""
    images_per_prompt: Annotated[int, Field(ge=1)] = 1
    """pictures of each prompt, before and after"""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """denoising steps, where a prompt's row says none; default 50, of the prompts `shapes` 15"""
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    """classifier-free guidance, where a row says none; default 7.5, of the prompts `shapes` 4"""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """pictures sampled at a time; default 8, of the prompts `shapes` 40"""
    seed: Annotated[int, Field(ge=0)] = 0
    """gives a set without seeds its own; refused beside a column of seeds, which has the last word"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """what the models compute in"""
    metrics: tuple[Annotated[AnyMetric, Field(discriminator="name")], ...] = ()
    """what is measured; default for the prompts `shapes`: its classifier and CLIP model, and how far pictures moved"""
    judge: Literal["concept_classifier", "imagenet_classifier", "zero_shot", "nudity"] | None = None
    """the metric that says which concept a picture shows; default: the first of the metrics that can. `nudity`: the
    target, where an exposed part scores at least `nudity_threshold`"""
    nudity_threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    """score from which the judge `nudity` calls a picture nude; peers use 0.25 to 0.75"""
    all_target: bool = False
    """prompts without concepts ask for the target: for sets such as I2P, which have no such column"""
    base_images: Place | None = None
    """folder of the base's pictures, made if absent: audits of one base may share it; default: in output_dir"""
    erased_images: Place | None = None
    """the same for the erased model's pictures: audits of its several targets may share it"""
    output_dir: Place | None = None
    """folder of pictures, scores, results.json and report.html; default: `<erased>-audit` beside an erased folder"""
    overwrite: bool = False
    """make the pictures and scores of an earlier audit again; pictures in base_images and erased_images stay"""


@plain_dataclass(frozen=True)
class AuditPlan:
    """An audit whose settings have been found good."""

    audit: Audit
    output: Path
    rows: Sequence[PromptRow]
    domain: str
    generations: dict[str, Generation]
    """Of the sides ``base`` and ``erased``."""
    metrics: tuple[AnyMetric, ...]
    judge: str


def plan_audit(audit: Audit) -> AuditPlan:
    """All that can be refused early is, at once; writes nothing."""
    problems: list[str] = []
    output = collect(problems, lambda: output_of(audit))
    metrics = collect(problems, lambda: metrics_of(audit))
    judge = collect(problems, lambda: judge_of(audit, metrics)) if metrics else None
    rows: Sequence[PromptRow] | None = None
    generations = collect(problems, lambda: generations_of(audit, output or Path("audit")))
    models: dict[str, Path] = {}
    for side, generation in (generations or {}).items():
        if found := collect(problems, partial(check_side, audit, side, generation)):
            rows, models[side] = with_target(audit, found[0]), found[1]
    if generations and rows and len(models) == len(generations):
        collect(problems, partial(check_alike, models["base"], models["erased"], generations["base"], rows))
    domain = collect(problems, lambda: check_concepts(audit, rows or ())) if rows else None
    if rows and domain and metrics and judge:
        problems += check_metrics(audit, metrics, rows, domain, judge)
    if output is not None:
        collect(problems, lambda: check_folder(audit, output))
    refuse(list(dict.fromkeys(problems)))
    if output is None or rows is None or domain is None or generations is None or metrics is None or judge is None:
        raise UserError("the audit has no plan")
    return AuditPlan(audit, output, rows, domain, generations, metrics, judge)


def check_side(audit: Audit, side: str, generation: Generation) -> tuple[Sequence[PromptRow], Path]:
    """The rows and the model's folder of a side."""
    with renamed(keys_of(audit, side)):
        return check_generation(generation)


def keys_of(audit: Audit, side: str) -> dict[str, str]:
    """The audit's own keys for those of a side's generation."""
    output = f"{side}_images" if getattr(audit, f"{side}_images") else "output_dir"
    return {"model": side, "lora": side, "revision": f"{side}_revision", "output_dir": output}


def check_metrics(
    audit: Audit, metrics: Sequence[AnyMetric], rows: Sequence[PromptRow], domain: str, judge: str
) -> list[str]:
    """What the metrics cannot do with these prompts; a classifier is loaded to know its labels."""
    problems: list[str] = []
    kept = [row for row in rows if not {audit.target, *audit.also_erased} & set(row.concepts.values())]
    for place, metric in enumerate(metrics):
        if isinstance(metric, ClipAccuracy) and not audit.all_target:
            collect(problems, partial(metric.check_target, f"metrics.{place}", audit.target))
        collect(problems, partial(metric.check, rows))
        if isinstance(metric, SetMetrics):
            needed, there = collect(problems, metric.fewest) or 0, len(kept) * audit.images_per_prompt
            if there < needed:
                problems.append(f"metrics: {metric.name} needs {needed} kept pictures; these prompts make {there}")
        if metric.name == judge and not problems:
            problems += judge_problems(metric, audit.target, domain, audit.neighbours, kept)
    return problems


def with_target(audit: Audit, rows: Sequence[PromptRow]) -> Sequence[PromptRow]:
    """The rows; with ``all_target`` those without concepts ask for the target."""
    if not audit.all_target:
        return rows
    return [row if row.concepts else replace(row, concepts={DOMAIN: audit.target}) for row in rows]


def check_folder(audit: Audit, output: Path) -> None:
    """Refuses to replace the results of another target."""
    file = output / RESULTS
    if audit.overwrite or not file.is_file():
        return
    try:
        target = json.loads(file.read_text(encoding="utf-8"))["target"]
    except (ValueError, LookupError, TypeError, OSError):
        raise UserError(f"output_dir: {file} is damaged or of no audit; give another folder, or --overwrite") from None
    if target != audit.target:
        raise UserError(f"output_dir: {output} holds the audit of {target!r}; give another folder, or --overwrite")


def output_of(audit: Audit) -> Path:
    """Where the audit goes."""
    if audit.output_dir is not None:
        return audit.output_dir
    folder = Path(audit.erased).expanduser()
    if not folder.exists():
        raise UserError(f"output_dir: must be given, as {audit.erased} is no folder here to put the audit beside")
    return beside(folder, "-audit")


def uses_shapes(audit: Audit) -> bool:
    """Whether the prompts are those of Shapes World."""
    return (audit.prompts or audit.base) == embedded.NAME


def metrics_of(audit: Audit) -> tuple[AnyMetric, ...]:
    """The metrics, each once; those of Shapes World where none are given and the prompts are its own."""
    names = [metric.name for metric in audit.metrics]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"metrics: {repeated[0]} is given twice; its file of scores bears its name")
    if audit.metrics:
        return audit.metrics
    if uses_shapes(audit):
        clip = embedded.NAME
        return (ConceptClassifier(), ClipScore(model=clip), ClipDistance(model=clip), PixelDistance())
    raise UserError(
        f"metrics: must be given for prompts of your own; one of {', '.join(JUDGES)} to say what a picture shows, and "
        f"clip_score; known: {', '.join(METRICS)}"
    )


def judge_of(audit: Audit, metrics: Sequence[AnyMetric]) -> str:
    """The metric that says which concept a picture shows."""
    able = [metric.name for metric in metrics if metric.name in JUDGES]
    if audit.judge is not None and audit.judge not in able:
        raise UserError(f"judge: {audit.judge} is not among the metrics; add it there")
    if not able:
        raise UserError(f"metrics: none of them says which concept a picture shows; add one of {', '.join(JUDGES)}")
    if "clip_score" not in [metric.name for metric in metrics]:
        raise UserError("metrics: clip_score is missing; the report shows it for every concept")
    return audit.judge or able[0]


def generations_of(audit: Audit, output: Path) -> dict[str, Generation]:
    """How the pictures of both sides are made: alike but for the model."""
    prompts = audit.prompts or (embedded.NAME if uses_shapes(audit) else None)
    if prompts is None:
        raise UserError(f"prompts: must be given for the base {audit.base}; a CSV with `prompt` and `concept/<domain>`")
    sampling: dict[str, Any] = dict(SHAPES_DEFAULTS) if uses_shapes(audit) else {}
    sampling |= {key: value for key in SHAPES_DEFAULTS if (value := getattr(audit, key)) is not None}
    if audit.base != embedded.NAME and is_weights(Path(audit.base).expanduser()):
        raise UserError(f"base: {audit.base} holds weights and no whole model; give the model that they change")
    base = Generation(
        model=audit.base,
        revision=audit.base_revision,
        prompts=prompts,
        images_per_prompt=audit.images_per_prompt,
        seed=audit.seed,
        dtype=audit.dtype,
        output_dir=audit.base_images or output / IMAGES / "base",
        overwrite=audit.overwrite and audit.base_images is None,
        **sampling,
    )
    own: dict[str, Any] = {"model": audit.erased, "revision": audit.erased_revision}
    if (weights := find_weights(audit.erased, audit.erased_revision, "erased_revision")) is not None:
        own = {"lora": weights}
    own["output_dir"] = audit.erased_images or output / IMAGES / "erased"
    own["overwrite"] = audit.overwrite and audit.erased_images is None
    return {"base": base, "erased": replace(base, **own)}


def check_concepts(audit: Audit, rows: Sequence[PromptRow]) -> str:
    """The target's domain; a concept that no prompt asks for is refused."""
    homes: dict[str, set[str]] = {}
    for row in rows:
        for domain, concept in row.concepts.items():
            homes.setdefault(concept, set()).add(domain)
    if not homes:
        remedy = "add a column `concept/<domain>`, or set all_target if all of them ask for the target"
        raise UserError(f"prompts: no row says which concept it asks for; {remedy}")
    given = (("target", [audit.target]), ("also_erased", audit.also_erased), ("neighbours", audit.neighbours))
    refuse(_unknown(key, name, homes) for key, names in given for name in names if name not in homes)
    gone = {audit.target, *audit.also_erased}
    refuse(f"neighbours: {name!r} is erased itself; leave it out" for name in audit.neighbours if name in gone)
    refuse(
        f"prompts: {concept!r} is a concept of {' and of '.join(sorted(domains))}; name them apart"
        for concept, domains in homes.items()
        if len(domains) > 1
    )
    return homes[audit.target].copy().pop()


def _unknown(key: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 3) or sorted(known)[:10]
    return f"{key}: no prompt asks for {name!r}; such as {', '.join(close)}"
