"""`erase demo`: erases one concept from the embedded model, and shows before and after on a page."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase import embedded
from erase.command_line import Arguments, run_command
from erase.components import STRICT
from erase.config import load
from erase.embedded import DEFAULT_CONFIG
from erase.evaluation.comparison import compare, embedded_exam, make_pairs
from erase.evaluation.report import write_report
from erase.evaluation.table import print_table
from erase.generation.sampling import SamplingSettings
from erase.provenance import describe_environment, write_json
from erase.training.erasure import ErasureRun, check_run, erase_concepts
from erase.training.output import PROVENANCE, check_output
from erase.training.step_log import read_log


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Demo:
    """Erases a concept of Shapes World and reports on it, offline, in minutes."""

    target: str = "star"
    """any object, color or style of Shapes World"""
    output: Path
    """folder of the erased pipeline, results.json and report.html"""
    overwrite: bool = False
    """empty the output folder first, if it holds an earlier demo"""
    seed: Annotated[int, Field(ge=0)] = 0
    """training seed"""
    evaluation_seed: Annotated[int, Field(ge=0)] = 0
    """seed of the pictures that are judged"""
    copies: Annotated[int, Field(ge=1)] = 1
    """pictures of each of the 240 full captions, before and after"""
    steps: Annotated[int, Field(ge=1, le=1000)] = 15
    """sampling steps of each picture"""
    max_train_steps: Annotated[int, Field(ge=1)] | None = None
    """training steps; default: those of the shipped configuration"""
    resume_from_checkpoint: str | None = None
    """`latest`: goes on with an interrupted demo"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("demo", Demo, run_demo, sys.argv[1:] if arguments is None else arguments)


def erasure_of(demo: Demo) -> ErasureRun:
    """The shipped configuration with the demo's target, seed and folder."""
    given = {"targets.0.concept": demo.target, "output_dir": demo.output / "erased", "seed": demo.seed}
    given["overwrite"] = demo.overwrite
    if demo.max_train_steps is not None:
        given["max_train_steps"] = demo.max_train_steps
    if demo.resume_from_checkpoint is not None:
        given["resume_from_checkpoint"] = demo.resume_from_checkpoint
    return load(ErasureRun, DEFAULT_CONFIG, [f"{key}={value}" for key, value in given.items()])


def run_demo(demo: Demo, _: Arguments) -> None:
    """Erases, generates, scores, reports."""
    run, resuming = erasure_of(demo), demo.resume_from_checkpoint is not None
    check_output(demo.output, demo.overwrite, resuming, "output", "erased/steps.jsonl")
    check_run(run)
    exam = embedded_exam(demo.copies, demo.evaluation_seed, SamplingSettings(steps=demo.steps))
    if demo.overwrite and not resuming and demo.output.exists():
        shutil.rmtree(demo.output)
    print(f"1 of 3: erasing {demo.target} from the embedded model", flush=True)
    print(erase_concepts(run).describe())
    print(f"2 of 3: the same {len(exam.shots)} prompts and seeds, before and after", flush=True)
    base = exam.sit(embedded.WEIGHTS / "pipeline", embedded.NAME)
    erased = exam.sit(run.output_dir, f"{embedded.NAME} without {demo.target}")
    print("3 of 3: the report", flush=True)
    results = compare(exam, base, erased, demo.target) | reproduction(demo, run)
    write_json(demo.output / "results.json", results)
    write_report(demo.output / "report.html", results, make_pairs(exam, base, erased), read_log(run.output_dir))
    print_table(results)
    print(f"Open {demo.output / 'report.html'}")


def reproduction(demo: Demo, run: ErasureRun) -> dict[str, Any]:
    """The commands that make this again, and what it was made with."""
    shown = {"target": demo.target, "output": demo.output, "seed": demo.seed, "evaluation_seed": demo.evaluation_seed}
    shown |= {"copies": demo.copies, "steps": demo.steps}
    shown |= {} if demo.max_train_steps is None else {"max_train_steps": demo.max_train_steps}
    trained = {"targets.0.concept": demo.target, "seed": demo.seed, "max_train_steps": run.max_train_steps}
    made = json.loads((run.output_dir / PROVENANCE).read_text(encoding="utf-8"))
    return {
        "command": command_of("erase demo", shown),
        "erase_command": command_of("erase train", {"config": embedded.NAME, **trained, "output_dir": "runs/it"}),
        "training": {"update": made["config"]["update"], "counts": made["counts"], "seed": demo.seed},
        "environment": describe_environment(),
    }


def command_of(program: str, settings: dict[str, Any]) -> str:
    """A command line that a shell can read back."""
    return " ".join([program, *(f"--{key} {shlex.quote(str(value))}" for key, value in settings.items())])


if __name__ == "__main__":
    sys.exit(main())
