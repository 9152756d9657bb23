"""An erasure from settings to a folder: the base, its latents, the loop, the result and how it was made."""

from __future__ import annotations

import time
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import release_memory
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.config import dump
from erase.diffusion.losses import TeacherDistillation
from erase.diffusion.pipelines import load_pipeline
from erase.diffusion.prepare import Base, Prepared, load_base, prepare
from erase.diffusion.settings import ErasureSettings, Plan, make_plan
from erase.diffusion.task import ErasureTask
from erase.errors import UserError, collect, refuse
from erase.parameters import LoRA, store_frozen
from erase.provenance import check_writable, default_cache
from erase.sharded import make_whole
from erase.training.launch import (
    PRECISIONS,
    autocast,
    check_overwriting,
    check_training,
    describe_training,
    disconnect,
    end_training,
    make_accelerator,
    start_training,
)
from erase.training.output import write_result
from erase.training.settings import TrainingSettings
from erase.training.sharding import shard_task, sharding_is_on
from erase.updates import is_held, label


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ErasureRun(TrainingSettings, ErasureSettings):
    """All settings of ``erase train`` for a diffusion model."""

    task: Literal["diffusion"] = "diffusion"
    """the domain"""
    save_merged: bool = False
    """after a LoRA run, also write the merged pipeline to `merged/`"""
    push_to_hub: bool = False
    """publish the result with its card when it is done; the right to write is checked before training starts"""
    hub_model_id: str | None = None
    """the repository on the Hub, OWNER/NAME; made if absent"""
    hub_private_repo: bool = False
    """a repository that is made is private"""


@plain_dataclass(frozen=True)
class Counts:
    """What a run cost."""

    gradient_evaluations: int
    latent_evaluations: int
    """Denoiser evaluations, one an example, that made the latents: in this run, or in the one that cached them."""
    training_evaluations: int
    """Denoiser evaluations of the training steps, the frozen base's among them."""
    seconds: float
    """Time of the loop, in all parts of a resumed run, and of the last part's preparation."""

    def describe(self) -> str:
        """The counts in a line."""
        total = self.latent_evaluations + self.training_evaluations
        return (
            f"{total:,} denoiser evaluations: {self.latent_evaluations:,} for latents "
            f"({100 * self.latent_evaluations / max(1, total):.0f} %), {self.training_evaluations:,} in training; "
            f"{self.gradient_evaluations:,} gradient evaluations; {self.seconds:.0f} s"
        )


def check_run(run: ErasureRun) -> Plan:
    """Everything that can be refused before a model is loaded or a file written."""
    problems: list[str] = []
    plan = collect(problems, lambda: make_plan(run))
    collect(problems, lambda: check_writable(run.latents.cache_dir or default_cache(), "latents.cache_dir"))
    check_training(run, problems)
    check_overwriting(run, problems, inputs_of(run), made=["latents.cache_dir"])
    if run.save_merged and not isinstance(run.parameters, LoRA):
        problems.append(f"save_merged: {run.parameters.name} has no adapter to merge; it belongs to parameters lora")
    if run.push_to_hub and run.hub_model_id is None:
        problems.append("hub_model_id: must be given with push_to_hub, as OWNER/NAME")
    if not run.push_to_hub and (run.hub_model_id is not None or run.hub_private_repo):
        problems.append("hub_model_id, hub_private_repo: do nothing without push_to_hub; add push_to_hub: true")
    if stands_still(run):
        problems.append(
            f"update: {label(dump(run.update))} takes no step where the retain gradient is 0, as that of "
            "teacher_distillation is where a run begins, and so would never move; choose another rule, or "
            "retain_loss.name denoising"
        )
    refuse(problems)
    if plan is None:
        raise UserError("the run has no plan")
    return plan


def stands_still(run: ErasureRun) -> bool:
    """Whether a teacher's loss without a slope at the teacher's own weights holds the rule where it begins."""
    taught = isinstance(run.retain_loss, TeacherDistillation) and run.adam_weight_decay == 0
    return taught and is_held(run.update, retain=0.0, forget=1.0)


def inputs_of(run: ErasureRun) -> dict[str, object]:
    """The files and folders that a run reads, by their keys."""
    inputs: dict[str, object] = {"model": run.model, "vocabulary": run.vocabulary, "retain.images": run.retain.images}
    inputs |= {"retain.prompts_file": run.retain.prompts_file, "latents.cache_dir": run.latents.cache_dir}
    inputs |= {f"targets.{i}.prompts_file": target.prompts_file for i, target in enumerate(run.targets)}
    return inputs


def erase_concepts(run: ErasureRun) -> Counts:
    """Trains, and leaves the model, its provenance, the settings and the step log in ``output_dir``."""
    started, plan = time.monotonic(), check_run(run)
    accelerator = make_accelerator(run)
    main = accelerator.is_main_process
    base = load_base(run, plan, accelerator.device)
    with torch.device("meta"):
        run.parameters.select(type(base.pipeline.unet).from_config(base.pipeline.unet.config))
    prepared = prepare(base, run, plan, run.seed, not main)
    task = make_task(run, base, prepared, accelerator)
    facts = {"base": base.hash, "prompts": prepared.prompt_hashes, "data": prepared.data_hashes}
    training = start_training(run, task, accelerator, facts)
    before = time.monotonic() - started
    cost = training.train()
    make_whole(base.pipeline.unet, keep=main)
    counts = Counts(
        cost.gradient_evaluations, prepared.latent_evaluations, cost.model_evaluations, before + cost.seconds
    )
    if main:
        made = describe(run, base, prepared, task, counts, accelerator)
        write_result(run.output_dir, task.save, made)
        if run.save_merged and isinstance(run.parameters, LoRA):
            write_result(run.output_dir, lambda folder: save_merged(base.folder, run.output_dir, folder), made)
    end_training(training)
    disconnect(accelerator)
    return counts


def make_task(run: ErasureRun, base: Base, prepared: Prepared, accelerator: Accelerator) -> ErasureTask:
    """The erasure as the loop sees it; of the pipeline, what trains alone stays on the device."""
    unet = base.pipeline.unet
    for part in base.pipeline.components.values():
        if isinstance(part, torch.nn.Module) and (part is not unet or sharding_is_on()):
            part.to("cpu")  # a UNet that is cut up, and its copy, go to the device in parts
    release_memory()
    task = ErasureTask(
        base.pipeline,
        run.parameters,
        (run.forget_loss, run.retain_loss),
        (prepared.forget, prepared.retain),
        prepared.told,
        forget_weight=run.forget_weight,
        seed=run.seed,
        gradient_checkpointing=run.gradient_checkpointing,
        autocast=lambda: autocast(run, accelerator.device),
    )
    if isinstance(run.parameters, LoRA) and run.mixed_precision != "no":
        store_frozen(unet, PRECISIONS[run.mixed_precision])
    if sharding_is_on():
        shard_task(task, unet)
    if run.compile:
        unet.forward = torch.compile(unet.forward)
    return task


def describe(
    run: ErasureRun, base: Base, prepared: Prepared, task: ErasureTask, counts: Counts, accelerator: Accelerator
) -> dict[str, Any]:
    """The provenance: what was done to which model, by what, at what cost."""
    return {
        "erased": [target.concept for target in run.targets],
        "base": {
            "model": run.model,
            "revision": run.revision,
            "hash": base.hash,
            "is_folder": Path(run.model).is_dir(),
        },
        "prompt_hashes": prepared.prompt_hashes,
        **describe_training(run, task, vars(counts), accelerator),
    }


def save_merged(base: Path, adapter: Path, folder: Path) -> None:
    """The base with the adapter folded into its weights, as a diffusers folder in ``folder/merged``."""
    pipeline = load_pipeline(base)
    pipeline.unet.load_lora_adapter(str(adapter), weight_name="pytorch_lora_weights.safetensors", prefix="unet")
    pipeline.fuse_lora(components=["unet"])
    pipeline.unload_lora_weights()
    pipeline.save_pretrained(folder / "merged", safe_serialization=True)
