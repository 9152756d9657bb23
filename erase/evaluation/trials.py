"""Erasures of the embedded model for a study: each judged on every full caption, stored, and made only once."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from erase import embedded
from erase.config import build, dump, load
from erase.errors import UserError
from erase.evaluation.audit import measure
from erase.evaluation.audit_settings import SHAPES_DEFAULTS, Audit, plan_audit
from erase.evaluation.metrics import ClipScore, ConceptClassifier
from erase.parameters import LoRA
from erase.provenance import describe_software, hash_folder, write_json
from erase.training.erasure import ErasureRun, erase_concepts
from erase.training.step_log import read_log

PLACES = ("output_dir", "overwrite", "logging_dir")
KEPT = ("target", "domain", "base", "erased", "prompts", "sampling", "metrics")
"""What a trial's result holds of its audit."""


@dataclass(frozen=True)
class Trial:
    """One erasure: the shipped configuration with overrides, and the seed of the pictures that judge it."""

    name: str
    """Names its file."""
    target: str
    seed: int
    evaluation_seed: int
    overrides: tuple[str, ...] = ()
    labels: tuple[tuple[str, Any], ...] = ()
    """What a table groups it by."""
    sampling_steps: int = SHAPES_DEFAULTS["num_inference_steps"]
    """Of each picture that judges it."""

    def run(self, folder: Path) -> ErasureRun:
        """Its settings, with the model going to ``folder``."""
        own = [f"targets.0.concept={self.target}", f"seed={self.seed}", f"output_dir={folder}", "overwrite=true"]
        return load(ErasureRun, embedded.DEFAULT_CONFIG, [*own, *self.overrides])

    def audit(self, model: str, scratch: Path) -> Audit:
        """What judges it. The base's pictures are made once a process, which shares them with no other."""
        return Audit(
            erased=model,
            target=self.target,
            seed=self.evaluation_seed,
            num_inference_steps=self.sampling_steps,
            metrics=(ConceptClassifier(), ClipScore(model=embedded.NAME)),
            base_images=scratch / f"base-{self.evaluation_seed}-{self.sampling_steps}-{os.getpid()}",
            output_dir=scratch / f"{self.name}-audit",
        )


class TrialStore:
    """A folder with one JSON for each finished trial; models lie in ``scratch`` while they are judged."""

    def __init__(self, folder: Path, scratch: Path, keep_models: bool = False) -> None:
        self.folder, self.scratch, self.keep_models = folder, scratch, keep_models

    def results(self) -> dict[str, dict[str, Any]]:
        """What is there, by the trials' names."""
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(self.folder.glob("*.json"))}

    def has(self, trial: Trial) -> bool:
        """Whether the trial's result is there, of the same settings, weights and exam."""
        file = self.folder / f"{trial.name}.json"
        if not file.exists():
            return False
        found = json.loads(file.read_text(encoding="utf-8"))
        same = settings_of(build(ErasureRun, found["config"])) == settings_of(trial.run(self.scratch / trial.name))
        judged = (found["prompts"]["evaluation_seed"], found["sampling"]["steps"])
        return same and found["base"]["hash"] == base_hash() and judged == (trial.evaluation_seed, trial.sampling_steps)

    def make(self, trials: Iterable[Trial]) -> None:
        """Makes what is missing; several processes may do so at a time, each trial being one's alone."""
        with self.swept():
            for trial in trials:
                self._make_unless_claimed(trial)

    def result(self, trial: Trial) -> dict[str, Any]:
        """The trial's result, made if it is missing; it is for the caller that no other process is at it."""
        self._make_unless_claimed(trial)
        if not self.has(trial):
            raise UserError(f"{trial.name}: another process is making it")
        return self.results()[trial.name]

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Takes this process's pictures of the base away at the end, which its trials share."""
        try:
            yield
        finally:
            for folder in self.scratch.glob(f"base-*-{os.getpid()}"):
                shutil.rmtree(folder)

    def _make_unless_claimed(self, trial: Trial) -> None:
        with self._claim(trial) as mine:
            if mine and not self.has(trial):
                print(trial.name, flush=True)
                self._make(trial)

    def _make(self, trial: Trial) -> None:
        folder = self.scratch / trial.name
        run = trial.run(folder)
        tree = {key: value for key, value in dump(run).items() if key not in PLACES}
        made = {
            "seed": trial.seed,
            **dict(trial.labels),
            **outcome(trial, run, self.scratch),
            "config": tree | {"output_dir": "runs/trial"},
            "environment": describe_software(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{trial.name}.json", made)
        shutil.rmtree(self.scratch / f"{trial.name}-audit", ignore_errors=True)
        if not self.keep_models:
            shutil.rmtree(folder)

    @contextmanager
    def _claim(self, trial: Trial) -> Iterator[bool]:
        """Whether no other process has the trial; the claim ends with the process at the latest."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with (self.scratch / f"{trial.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def outcome(trial: Trial, run: ErasureRun, scratch: Path) -> dict[str, Any]:
    """Trains and judges; a run whose loss was not finite has no model, and so ``diverged`` in place of its scores."""
    try:
        counts = erase_concepts(run)
    except UserError as error:
        if "not finite" not in str(error):
            raise
        return judged(trial.audit(embedded.NAME, scratch)) | {"erased": None, "diverged": error.problems[0]}
    shutil.rmtree(scratch / f"{trial.name}-audit", ignore_errors=True)  # of a process that was killed
    model = run.output_dir / "merged" if isinstance(run.parameters, LoRA) else run.output_dir
    results = judged(trial.audit(str(model), scratch))
    results["erased"]["model"] = trial.name
    return results | {"counts": vars(counts), "gradients": course(read_log(run.output_dir))}


def judged(audit: Audit) -> dict[str, Any]:
    """What a study keeps of an audit."""
    measured = measure(plan_audit(audit))
    if measured is None:
        raise UserError("a study's trial is made by one process; start several studies to share the work")
    return {key: measured[1][key] for key in KEPT}


def settings_of(run: ErasureRun) -> dict[str, Any]:
    """All that shapes the result: every setting but where things are written."""
    tree = {key: value for key, value in dump(run).items() if key not in PLACES}
    tree["latents"] = {key: value for key, value in tree["latents"].items() if key != "cache_dir"}
    return tree


@cache
def base_hash() -> str:
    """Of the embedded pipeline."""
    return hash_folder(embedded.WEIGHTS / "pipeline")


def course(log: list[dict[str, Any]]) -> dict[str, Any]:
    """How the gradients lay to each other: the cosine's mean over the run and over its last tenth, and conflicts.

    ``at`` says where they were taken. ``theta``: both at the weights before an update, by ``count`` probes, so that
    rules compare; then ``blocks`` has each block's mean. ``step``, in a log without probes: where the rule looked,
    which for LUR is at two points; ``steps_in_conflict`` is by these in any case. ``correction``: the median of LUR's,
    as a share of the plain sum, over the steps that measured it. A result without ``at``, ``steps_in_conflict`` or
    ``correction`` is older; without ``at`` its cosines are of the steps.
    """
    probes = [line["cosine_before"] for line in log if line.get("cosine_before") is not None]
    steps = [line["cosine"] for line in log if line["cosine"] is not None]
    cosines = probes or steps
    last = cosines[-max(1, len(cosines) // 10) :]
    corrections = [line["correction"] for line in log if line.get("correction") is not None]
    return {
        "at": "theta" if probes else "step",
        "count": len(cosines),
        "mean_cosine": sum(cosines) / len(cosines) if cosines else None,
        "final_cosine": sum(last) / len(last) if last else None,
        "conflict_share": share_below_zero(cosines),
        "steps_in_conflict": share_below_zero(steps),
        "correction": statistics.median(corrections) if corrections else None,
        "blocks": means_of(log, "cosine_before/"),
    }


def share_below_zero(cosines: Sequence[float]) -> float | None:
    """0 to 1; none of none."""
    return sum(c < 0 for c in cosines) / len(cosines) if cosines else None


def means_of(log: list[dict[str, Any]], prefix: str) -> dict[str, float]:
    """Of each number whose name begins so, by the rest of its name: the mean over the steps that have it."""
    found: dict[str, list[float]] = {}
    for line in log:
        for key, value in line.items():
            if key.startswith(prefix) and value is not None:
                found.setdefault(key.removeprefix(prefix), []).append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``98.3 ± 0.4``: mean and standard deviation; a dash where nothing was measured."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
