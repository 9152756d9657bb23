"""`erase demo`: erases one concept from the embedded model, and shows before and after on a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase import embedded
from erase.audit import show
from erase.command_line import Arguments, run_command, stoppable
from erase.components import STRICT
from erase.config import load
from erase.embedded import DEFAULT_CONFIG
from erase.evaluation.audit import command_line, run_audit
from erase.evaluation.audit_settings import Audit
from erase.provenance import empty_folder
from erase.training.erasure import ErasureRun, check_run, erase_concepts
from erase.training.output import check_output


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
    run = load(ErasureRun, DEFAULT_CONFIG, [f"{key}={value}" for key, value in given.items()])
    return replace(run, lr_warmup_steps=min(run.lr_warmup_steps, run.max_train_steps - 1))


def audit_of(demo: Demo) -> Audit:
    """The audit of the demo's erased model; its pictures, scores and page lie in the demo's folder."""
    return Audit(
        erased=str(demo.output / "erased"),
        target=demo.target,
        seed=demo.evaluation_seed,
        images_per_prompt=demo.copies,
        num_inference_steps=demo.steps,
        output_dir=demo.output,
    )


def run_demo(demo: Demo, _: Arguments) -> None:
    """Erases, generates, scores, reports: `erase train`, then `erase audit`."""
    run, resuming = erasure_of(demo), demo.resume_from_checkpoint is not None
    check_output(demo.output, demo.overwrite, resuming, "output", "erased/steps.jsonl")
    check_run(run)
    if demo.overwrite and not resuming and demo.output.exists():
        empty_folder(demo.output)
    print(f"1 of 2: erasing {demo.target} from the embedded model", flush=True)
    print(erase_concepts(run).describe())
    print("2 of 2: the same prompts and seeds before and after, scored", flush=True)
    audit, remedy = audit_of(demo), "To go on, add --resume_from_checkpoint latest to the command"
    show(audit, stoppable(lambda stop: run_audit(audit, stop, commands(demo, run)), remedy))


def commands(demo: Demo, run: ErasureRun) -> dict[str, str]:
    """The commands that make this again."""
    shown = {"target": demo.target, "output": demo.output, "seed": demo.seed, "evaluation_seed": demo.evaluation_seed}
    shown |= {"copies": demo.copies, "steps": demo.steps}
    shown |= {} if demo.max_train_steps is None else {"max_train_steps": demo.max_train_steps}
    trained = {"targets.0.concept": demo.target, "seed": demo.seed, "max_train_steps": run.max_train_steps}
    trained |= {"lr_warmup_steps": run.lr_warmup_steps}
    erasing = {"config": embedded.NAME, **trained, "output_dir": "runs/it"}
    return {"command": command_line("erase demo", shown), "erase_command": command_line("erase train", erasing)}


if __name__ == "__main__":
    sys.exit(main())
