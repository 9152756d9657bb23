"""What a run of any domain does around its loop: checks, processes, the output folder, trackers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration

from erase.config import dump
from erase.diffusion.settings import ErasureSettings
from erase.errors import UserError, collect, refuse
from erase.protocols import Task
from erase.provenance import describe_environment, hash_json
from erase.training.checkpoint import check_identity, drop_after, find_checkpoint, read_state
from erase.training.loop import TrainingRun
from erase.training.optimization import check_8bit
from erase.training.output import check_inputs_survive, check_output, open_output
from erase.training.settings import TrainingSettings
from erase.training.sharding import sharding_is_on, sharding_problems
from erase.updates import LUR, AlternatingSteps, RetainOnly, key_of, remembering, rule_of


def check_training(run: TrainingSettings, problems: list[str]) -> None:
    """Adds to ``problems`` what is wrong with the settings that every domain has."""
    collect(problems, lambda: check_output(run.output_dir, run.overwrite, resumes_in_place(run)))
    collect(problems, lambda: check_tracker(run.report_to))
    problems += warmup_problems(run)
    if isinstance(run.update, RetainOnly) and isinstance(run, ErasureSettings):
        problems.append("update.name: found retain_only, by which nothing is erased; it is for task classification")
    if isinstance(run.update, AlternatingSteps) and run.update.forget_until == 0:
        problems.append("update.forget_until: found 0, so that no step forgets; give the step that forgetting ends at")
    if run.optimizer == "adamw8bit":
        collect(problems, check_8bit)
    problems += [
        *precision_problems(run),
        *launcher_problems(run),
        *(sharding_problems(run) if sharding_is_on() else ()),
    ]
    if run.resume_from_checkpoint:
        collect(problems, lambda: check_resume(run))


def check_overwriting(
    run: TrainingSettings, problems: list[str], inputs: Mapping[str, object], made: Sequence[str] = ()
) -> None:
    """Adds to ``problems`` what a run would read and, by clearing its output folder, remove."""
    if run.overwrite and not resumes_in_place(run):
        inputs = {**inputs, "resume_from_checkpoint": run.resume_from_checkpoint}
        collect(problems, lambda: check_inputs_survive(run.output_dir, inputs, made))


def warmup_problems(run: TrainingSettings) -> Iterator[str]:
    """A warmup that does not happen, or does not end."""
    found = f"lr_warmup_steps: found {run.lr_warmup_steps};"
    if run.lr_warmup_steps and run.lr_scheduler == "constant":
        yield f"{found} lr_scheduler constant has none; choose constant_with_warmup, or leave it 0"
    elif run.lr_warmup_steps and run.lr_warmup_steps >= run.max_train_steps:
        yield (
            f"{found} must be fewer than max_train_steps, {run.max_train_steps}, or learning_rate is never reached; "
            "lower it, or train for longer"
        )


def precision_problems(run: TrainingSettings) -> Iterator[str]:
    """What of speed and precision second derivatives cannot be had with."""
    rule, mode = rule_of(run.update), f"{key_of(run.update)}.mode exact"
    if not isinstance(rule, LUR) or rule.mode != "exact":
        return
    if run.mixed_precision == "fp16":
        yield f"mixed_precision: fp16 scales losses, not the second derivatives of {mode}; use bf16 or no"
    if run.compile:
        yield f"compile: a compiled model cannot be differentiated twice, as {mode} does; leave it out"


WITHOUT_EFFECT = {
    "ACCELERATE_USE_DEEPSPEED": ("deepspeed", "to spread the weights, see configs/accelerate/fsdp.yaml"),
    "ACCELERATE_USE_MEGATRON_LM": ("megatron_lm", "to spread the weights, see configs/accelerate/fsdp.yaml"),
    "ACCELERATE_DYNAMO_BACKEND": (
        "dynamo_backend",
        "set it to no there; a diffusion model is compiled with --compile true",
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "fsdp_activation_checkpointing",
        "set it to false there, and give --gradient_checkpointing true",
    ),
}
"""What accelerate sets for its own `prepare`, which wraps nothing here; and what does the same."""


def launcher_problems(run: TrainingSettings) -> Iterator[str]:
    """What `accelerate launch`, or `accelerate config`, was told beside the settings, and would be without effect."""
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if told not in ("no", run.mixed_precision):
        yield f"mixed_precision: found {run.mixed_precision}, and {told} by accelerate; give --mixed_precision {told}"
    parts = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if parts not in ("1", "auto", str(run.gradient_accumulation_steps)):
        found = f"found {run.gradient_accumulation_steps}, and {parts} by accelerate"
        yield f"gradient_accumulation_steps: {found}; give --gradient_accumulation_steps {parts}"
    for variable, (what, remedy) in WITHOUT_EFFECT.items():
        asked = os.environ.get(variable, "no").lower()
        if asked not in ("", "0", "no", "false"):
            yield f"{what}: found {asked} in accelerate's config, which is without effect here; {remedy}"


PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(run: TrainingSettings, device: torch.device) -> torch.autocast:
    """The precision of forward passes."""
    return torch.autocast(device.type, PRECISIONS.get(run.mixed_precision), enabled=run.mixed_precision != "no")


def check_resume(run: TrainingSettings) -> None:
    """Refuses a checkpoint that is damaged or whose settings differ, and a rule whose memory it does not hold."""
    refuse(
        f"{place}: {each.aggregator} remembers past steps, and no checkpoint holds that; a run with it is not resumed; "
        "start it anew"
        for place, each in remembering(run.update).items()
    )
    folder = find_checkpoint(str(run.resume_from_checkpoint), run.output_dir)
    then = read_state(folder)["identity"]
    total = run.train_batch_size * run.gradient_accumulation_steps * started_processes()
    told = {"total_batch": then["total_batch"]} if "total_batch" in then else {}
    check_identity(folder, {"config": then.get("config", {}), **told}, {"config": dump(run), "total_batch": total})


def resumes_in_place(run: TrainingSettings) -> bool:
    """Whether the run goes on in the folder of the checkpoint that it resumes from."""
    if run.resume_from_checkpoint in (None, "latest"):
        return run.resume_from_checkpoint == "latest"
    return Path(str(run.resume_from_checkpoint)).resolve().parent == run.output_dir.resolve()


def check_tracker(name: str) -> None:
    """Refuses a tracker that is not installed: a run must not train untracked that was to be tracked."""
    if name == "all" and not get_available_trackers():
        raise UserError("report_to: found all, and no tracker is installed; pip install tensorboard, or wandb")
    if name not in ("none", "all") and find_spec(name) is None:
        raise UserError(f"report_to: {name} is not installed; pip install {name}")


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, for trackers; a list is written out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{key}.")
        else:
            found[before + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


def started_processes() -> int:
    """How many processes the launcher started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def make_accelerator(run: TrainingSettings) -> Accelerator:
    """Accelerate's processes, precision and trackers; the model itself is not wrapped."""
    folders = ProjectConfiguration(project_dir=str(run.output_dir), logging_dir=str(run.output_dir / run.logging_dir))
    tracker = None if run.report_to == "none" else run.report_to
    accelerator = Accelerator(mixed_precision="no", log_with=tracker, project_config=folders)
    started = started_processes()
    if started != accelerator.num_processes:  # each would take itself for the only one, and write where the others do
        raise UserError(
            f"processes: {started} were started, and accelerate connects {accelerator.num_processes}; on a machine "
            "without a GPU set ACCELERATE_USE_CPU=true, else look at `accelerate env`"
        )
    accelerator.wait_for_everyone()  # all have checked the output folder before one opens it
    return accelerator


def start_training(
    run: TrainingSettings, task: Task, accelerator: Accelerator, facts: Mapping[str, Any]
) -> TrainingRun:
    """The loop, at its checkpoint where it resumes, with its output folder opened; ``facts`` identify the run."""
    training = TrainingRun(task, run, accelerator, {"config": dump(run), **facts})
    training.resume()
    if accelerator.is_main_process:
        open_output(run.output_dir, run.overwrite and not resumes_in_place(run), dump(run))
        if resumes_in_place(run):
            drop_after(run.output_dir, training.state.step)
    accelerator.wait_for_everyone()
    accelerator.init_trackers("erase", config={**flat(dump(run)), "config_hash": hash_json(dump(run))})
    return training


def describe_training(
    run: TrainingSettings, task: Task, counts: Mapping[str, Any], accelerator: Accelerator
) -> dict[str, Any]:
    """What the provenance of every domain says: settings, size, cost, processes and versions."""
    return {
        "config": dump(run),
        "trained_parameters": sum(p.numel() for p in task.trainable.values()),
        "counts": {**counts},
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "environment": describe_environment(),
    }


def end_training(training: TrainingRun) -> None:
    """Waits for the process that wrote the result, and closes the trackers; the processes stay connected."""
    training.accelerator.wait_for_everyone()
    for tracker in training.accelerator.trackers:
        tracker.finish()


def disconnect(accelerator: Accelerator) -> None:
    """Ends the connection of the processes, when all that a command trains is trained."""
    accelerator.state.destroy_process_group()
