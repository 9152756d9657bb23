"""An audit: the same prompts and seeds through the base and the erased model, scored, compared and shown."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from erase.config import dump
from erase.errors import renamed
from erase.evaluation.audit_settings import RESULTS, Audit, AuditPlan, keys_of, plan_audit
from erase.evaluation.findings import collateral, findings
from erase.evaluation.metrics import ImageMetrics, PairMetrics, SetMetrics
from erase.evaluation.metrics.runner import collect_features, score_folder, score_pairs
from erase.evaluation.metrics.store import ScoreTable
from erase.evaluation.other_findings import moved, nudity, other_judges, other_scores
from erase.evaluation.report import Pair, write_report
from erase.evaluation.sides import Side, counted, kept_places, prompts_of
from erase.generation.folder import ImageFolder
from erase.generation.records import LOCK
from erase.generation.run import Stop, generate_folder, join_processes
from erase.generation.sampler import free_memory
from erase.provenance import describe_environment, empty_folder, hash_json, read_json, write_json
from erase.training.output import CONFIG, PROVENANCE
from erase.training.step_log import FILE_NAME, read_log

REPORT, SCORES, FEATURES = "report.html", "scores", "features"
SIDES, PAIRS = ("base", "erased"), "pairs"


def run_audit(audit: Audit, stop: Stop | None = None, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Makes the pictures of both sides, scores them, and writes ``results.json`` and ``report.html``.

    Every process makes its share of the pictures; the first one scores, and alone returns results. What is there
    already, of the same settings, is not made again. ``facts`` are added to the results, such as the command.
    """
    plan, made = plan_audit(audit), training_facts(audit)
    measured = measure(plan, stop)
    if measured is None:
        return {}
    sides, results = measured
    results |= {"command": command_of(audit), **made, "environment": describe_environment()}
    results |= dict(facts or {})
    write_json(plan.output / RESULTS, results)
    write_report(plan.output / REPORT, results, make_pairs(plan, sides), training_log(audit))
    return results


def measure(plan: AuditPlan, stop: Stop | None = None) -> tuple[dict[str, Side], dict[str, Any]] | None:
    """The pictures and scores of both sides, and what they come to; ``None`` on all processes but the first."""
    if plan.audit.overwrite and join_processes().is_main_process:
        forget(plan)
    folders = {}
    for side in SIDES:
        with renamed(keys_of(plan.audit, side)):
            folders[side] = generate_folder(plan.generations[side], stop)
    free_memory()
    if not PartialState().is_main_process:
        return None
    sides = {side: Side(folders[side], image_scores(plan, side, folders[side])) for side in SIDES}
    base, erased, pairs = sides["base"], sides["erased"], pair_scores(plan, folders)
    results = findings(plan, base, erased)
    results["metrics"] |= {name: table.identity for name, table in pairs.items()}
    results |= {
        "collateral": collateral(plan, base, erased),
        "other_scores": other_scores(plan, base, erased),
        "moved": moved(plan, folders["base"].pictures, pairs),
        "distances": set_distances(plan, folders),
        "nudity": nudity(plan, base, erased),
        "other_judges": other_judges(plan, base, erased),
    }
    return sides, results


def forget(plan: AuditPlan) -> None:
    """Removes what an earlier audit measured and said, and what would stand in the way of going on with this one.

    The base's pictures are generation's to overwrite; an audit that is stopped there has not come to the erased ones.
    """
    for name in (RESULTS, REPORT):
        (plan.output / name).unlink(missing_ok=True)
    for place in itertools.product((SCORES, FEATURES), (*SIDES, PAIRS)):
        shutil.rmtree(plan.output.joinpath(*place), ignore_errors=True)
    erased = plan.generations["erased"]
    if erased.overwrite and erased.output_dir.exists():
        empty_folder(erased.output_dir, keep=(LOCK,))


def image_scores(plan: AuditPlan, side: str, folder: ImageFolder) -> dict[str, ScoreTable]:
    """Every metric of single pictures, each written as soon as it is measured."""
    place = plan.output / SCORES / side
    wanted = [metric for metric in plan.metrics if isinstance(metric, ImageMetrics)]
    return {metric.name: score_folder(metric, folder, place / f"{metric.name}.parquet") for metric in wanted}


def pair_scores(plan: AuditPlan, folders: Mapping[str, ImageFolder]) -> dict[str, ScoreTable]:
    """Every metric of pairs of one prompt and seed."""
    place, both = plan.output / SCORES / PAIRS, (folders["base"], folders["erased"])
    wanted = [metric for metric in plan.metrics if isinstance(metric, PairMetrics)]
    return {metric.name: score_pairs(metric, *both, place / f"{metric.name}.parquet") for metric in wanted}


def set_distances(plan: AuditPlan, folders: Mapping[str, ImageFolder]) -> dict[str, Any]:
    """Distances between the kept pictures before and those after, as two sets."""
    pictures = folders["base"].pictures
    kept = kept_places(plan, pictures)
    prompts = prompts_of(pictures, kept)
    found: dict[str, Any] = {}
    for metric in plan.metrics:
        if isinstance(metric, SetMetrics):
            extractor = metric.features
            stores = [plan.output / FEATURES / side / hash_json(extractor.identity())[:12] for side in SIDES]
            before, after = (
                collect_features(extractor, folders[s], at)[kept] for s, at in zip(SIDES, stores, strict=True)
            )
            distance = metric.distance(before, after, paired=True, clusters=prompts)
            found[metric.name] = {"identity": metric.identity(), "kept": distance.as_dict()}
    return found


def make_pairs(plan: AuditPlan, sides: Mapping[str, Side]) -> list[Pair]:
    """Each prompt's picture before and after, for the report."""
    places = counted(plan, sides["base"].folder.pictures)
    columns = [(sides[side].folder.pictures, sides[side].judged(plan)) for side in SIDES]
    (before, then), (after, now) = columns
    return [
        Pair(before[p].prompt, before[p].seed, then[p].asked, before[p].file, after[p].file, then[p].seen, now[p].seen)
        for p in places
    ]


def training_log(audit: Audit) -> list[dict[str, Any]]:
    """The step log beside an erased folder's weights; empty where there is none."""
    folder = Path(audit.erased).expanduser()
    return read_log(folder) if (folder / FILE_NAME).is_file() else []


def training_facts(audit: Audit) -> dict[str, Any]:
    """How the erased model came about, where its folder says so."""
    folder = Path(audit.erased).expanduser()
    if not (folder / PROVENANCE).is_file():
        return {}
    made = read_json(folder / PROVENANCE, "erased")
    if not {"update", "seed"} <= set(made.get("config") or ()) or "counts" not in made:
        return {}  # a file of that name, and of another kind
    training = {"update": made["config"]["update"], "counts": made["counts"], "seed": made["config"]["seed"]}
    command = command_line("erase train", {"config": Path(audit.erased) / CONFIG, "output_dir": "runs/again"})
    return {"training": training, "erase_command": command}


def command_of(audit: Audit) -> str:
    """The audit's command, with the settings that are not the defaults."""
    default = dump(Audit(erased=audit.erased, target=audit.target))
    given = {k: v for k, v in dump(audit).items() if v != default[k] and k not in ("metrics", "overwrite")}
    plain = {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in given.items()}
    named = {"base": audit.base, "erased": audit.erased, "target": audit.target}
    measured = {"metrics": json.dumps(dump(audit)["metrics"])} if audit.metrics else {}
    return command_line("erase audit", named | plain | measured)


def command_line(program: str, settings: Mapping[str, Any]) -> str:
    """A command line that a shell can read back."""
    return " ".join([program, *(f"--{key} {shlex.quote(str(value))}" for key, value in settings.items())])
