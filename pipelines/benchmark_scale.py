"""What an audit of 30,000 prompts costs, with a sampler that takes no time: folders, scores, results and report.

    python -m pipelines.benchmark_generation --setting scale

Each phase is a process of its own, so that its peak memory is its own. The pictures are noise, which compresses worst.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erase import embedded
from erase.command_line import quieten
from erase.evaluation.audit import REPORT, SIDES, image_scores, pair_scores, run_audit, set_distances
from erase.evaluation.audit_settings import Audit, AuditPlan, plan_audit
from erase.evaluation.metrics import FID, ClipDistance, ClipScore, ConceptClassifier, PixelDistance
from erase.evaluation.metrics.features import ClipFeatures
from erase.generation.folder import open_folder
from erase.generation.plan import Ask
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import vocabulary_set
from erase.generation.run import generate_folder
from pipelines.generation_table import PHASES, Figures

ROOT = Path(__file__).resolve().parents[1]
CAPTIONS = 240
"""Of Shapes World; a set of fewer rows would lack some concepts."""
SIDE = 64
"""Pixels: all pictures of both sides take 740 MB, so that memory that held them would show."""
DAMAGED = 100


def audit_of(place: Path) -> Audit:
    """Every kind of metric, on the embedded judges; both sides are named after the embedded model."""
    clip = embedded.NAME
    single, pairs = (ConceptClassifier(), ClipScore(model=clip)), (ClipDistance(model=clip), PixelDistance())
    return Audit(
        erased=embedded.NAME,
        target="star",
        prompts=str(place / "set.csv"),
        num_inference_steps=1,
        batch_size=32,
        metrics=(*single, *pairs, FID(features=ClipFeatures(model=clip))),
        output_dir=place / "audit",
    )


def paint(batch: Sequence[Ask]) -> NDArray[np.uint8]:
    """A sampler in no time: noise of the image's own seed."""
    size = (batch[0].look.height, batch[0].look.width, 3)
    return np.stack([np.random.default_rng(ask.seed).integers(0, 256, size, dtype=np.uint8) for ask in batch])


def negative(batch: Sequence[Ask]) -> NDArray[np.uint8]:
    """The same of the erased side: other pictures of the same prompts and seeds."""
    return 255 - paint(batch)


PAINTERS = dict(zip(SIDES, (paint, negative), strict=True))


def make(plan: AuditPlan, side: str) -> dict[str, Any]:
    """The pictures of a side that are missing or damaged."""
    made = generate_folder(plan.generations[side], make_sampler=lambda *_: PAINTERS[side])
    return {"images": made.made.images}


def read(plan: AuditPlan) -> dict[str, Any]:
    """A side's pictures, verified and read as a stream."""
    folder = open_folder(plan.generations[SIDES[0]].output_dir)
    return {"images": sum(len(images) for _, images in folder.batches(32))}


def score(plan: AuditPlan) -> dict[str, Any]:
    """Both sides found whole, and every metric: measured, or read where it is stored."""
    folders = {side: generate_folder(plan.generations[side]) for side in SIDES}
    for side in SIDES:
        image_scores(plan, side, folders[side])
    pair_scores(plan, folders)
    set_distances(plan, folders)
    return {"images": sum(len(folder.pictures) for folder in folders.values())}


def report(plan: AuditPlan) -> dict[str, Any]:
    """The command `erase audit` where all is scored: figures with intervals, results and the page."""
    results = run_audit(plan.audit)
    size = (plan.output / REPORT).stat().st_size
    return {"images": results["prompts"]["count"] * len(SIDES), "report_mb": size / 1e6}


CALLS: dict[str, Callable[[AuditPlan], dict[str, Any]]] = {
    "make": lambda plan: make(plan, "base"),
    "resume": lambda plan: make(plan, "base"),
    "read": read,
    "other side": lambda plan: make(plan, "erased"),
    "score": score,
    "score again": score,
    "report": report,
}


def phase(name: str, place: Path) -> dict[str, Any]:
    """One phase, with its seconds and its peak memory in MiB; what Python takes to start is not counted."""
    begin = time.perf_counter()
    found = CALLS[name](plan_audit(audit_of(place)))
    seconds, peak = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**found, "seconds": seconds, "peak_mib": peak}


def write_rows(place: Path, size: int) -> None:
    """The set: the full captions again and again, each row with a seed of its own."""
    copies = -(-size // CAPTIONS)
    rows = vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=0, images=copies)[:size]
    place.mkdir()
    write_prompt_set([replace(row, width=SIDE, height=SIDE) for row in rows], place / "set.csv")


def damage(place: Path, size: int) -> None:
    """Spoils a hundred of the base's pictures."""
    images = plan_audit(audit_of(place)).generations["base"].output_dir / "images"
    for number in range(0, size, max(1, size // DAMAGED)):
        (images / f"{number:05d}_0.png").write_bytes(b"damaged")


def measure_scale(given: argparse.Namespace, folder: Path) -> Figures:
    """Every phase, at a tenth of the size and at the size."""
    cases = []
    for size in sorted({max(CAPTIONS, given.images // 10), given.images}):
        place, found = folder / str(size), {}
        write_rows(place, size)
        for name in PHASES:
            line = [sys.executable, "-m", "pipelines.benchmark_scale", name, str(place)]
            quiet = {**os.environ, "TQDM_DISABLE": "1"}
            done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, env=quiet)
            if done.returncode:
                raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(f"{size:,}", name, found[name], flush=True)
            if name == "make":
                damage(place, size)
        cases.append({"rows": size, **found})
    return {"cases": cases}


if __name__ == "__main__":
    quieten()
    print(json.dumps(phase(sys.argv[1], Path(sys.argv[2]))))
