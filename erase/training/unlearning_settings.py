"""The settings of a classifier's unlearning, and what of them can be refused before data are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.classification.data import Digits
from erase.classification.fit import unfit_losses
from erase.classification.losses import CrossEntropy, ForgetLoss, GradientAscent, RetainLoss
from erase.classification.masks import FILE as MASK_FILE
from erase.classification.masks import Mask, NoMask
from erase.classification.models import ModelSettings
from erase.classification.splits import Data, Forget
from erase.classification.starts import Scratch, Start, Trained
from erase.components import STRICT
from erase.errors import refuse
from erase.parameters import LoRA
from erase.training.launch import check_overwriting, check_training
from erase.training.settings import TrainingSettings
from erase.training.sharding import sharding_is_on
from erase.updates import RetainOnly

UNSCALED = ("saliency", "fisher_ratio", "influence_unlearning", "selective_dampening", "trim", "boundary_shrink")
"""Masks, starts and losses that take gradients of their own."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Recipe:
    """How a classifier is trained from its first weights: the original, and the one retrained without the forget set.

    SGD with momentum 0.9, the learning rate rising over a tenth of the steps and falling to 0 as a cosine.
    """

    max_train_steps: Annotated[int, Field(ge=1)] = 300
    """optimizer steps"""
    train_batch_size: Annotated[int, Field(ge=1)] = 128
    """examples in a step"""
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """peak learning rate"""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """weight decay"""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class UnlearningRun(TrainingSettings):
    """All settings of ``erase train`` for a classifier."""

    task: Literal["classification"]
    """the domain"""
    data: Annotated[Data, Field(discriminator="name")] = Digits()
    """the pictures and their labels"""
    forget: Annotated[Forget, Field(discriminator="name")]
    """which training samples are to be forgotten"""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """seed of the splits, of what is forgotten at random and of flipped labels"""
    model: ModelSettings = ModelSettings()
    """the classifier; `model.checkpoint` has the weights that are to forget"""
    original: Recipe = Recipe()
    """how the weights that are to forget are trained, once, where `model.checkpoint` names none; kept in the cache"""
    start: Annotated[Start, Field(discriminator="name")] = Trained()
    """what is done to the weights before the first step"""
    forget_loss: Annotated[ForgetLoss, Field(discriminator="name")] = GradientAscent()
    """what the model learns to do on what is to be forgotten"""
    retain_loss: Annotated[RetainLoss, Field(discriminator="name")] = CrossEntropy()
    """what holds the model in place on the rest"""
    mask: Annotated[Mask, Field(discriminator="name")] = NoMask()
    """which entries of the trained parameters move"""
    learn_from: Literal["retain", "all"] = "retain"
    """what the retain loss sees: what is kept, or all training samples, as the original model's training does"""
    batch_norm: Literal["frozen", "batch"] = "frozen"
    """statistics in training: the stored ones, which stay; or each batch's, the stored ones following the first look
    at a step's retain batch; under `forget_only`, which never looks at it, they stay"""
    max_train_steps: Annotated[int, Field(ge=0)] = 100
    """optimizer steps; 0: `start` is all that is done"""
    train_batch_size: Annotated[int, Field(ge=1)] = 128
    """examples of each objective per process and micro-batch"""
    optimizer: Literal["adamw", "adamw8bit", "adam", "sgd"] = "sgd"
    """torch's optimizers; adamw8bit: bitsandbytes' (`pip install erase[8bit]`), moments in a quarter of the memory"""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """peak learning rate"""
    probe_every: Annotated[int, Field(ge=0)] = 0
    """steps between looks at <g_f, g_r> on the same batch before and after an update; 0: never"""


def check_unlearning(run: UnlearningRun) -> None:
    """Everything that can be refused before data are loaded or a file written."""
    problems: list[str] = []
    check_training(run, problems)
    check_overwriting(run, problems, inputs_of(run))
    if run.learn_from == "all" and not isinstance(run.update, RetainOnly):
        problems.append(f"learn_from: all trains an original, with update.name retain_only; found {run.update.name}")
    if run.max_train_steps == 0 and isinstance(run.start, Scratch):
        problems.append("max_train_steps: found 0; scratch weights that are not trained are no classifier")
    if run.max_train_steps == 0 and isinstance(run.start, Trained):
        problems.append("max_train_steps: found 0 with start.name trained: nothing would be forgotten; give steps")
    if isinstance(run.parameters, LoRA):
        problems.append("parameters.name: lora is for diffusers' models; found it with task classification; use full")
    refuse([*problems, *unsuited(run), *mismatched(run)])


def unsuited(run: UnlearningRun) -> Iterator[str]:
    """What of speed and memory does not go with a classifier, or with its methods."""
    if sharding_is_on():
        yield "task: classification is not spread over processes by FSDP; launch it without, see `accelerate config`"
    if run.compile:
        yield "compile: is for diffusion models; found it with task classification; leave it out"
    if run.gradient_checkpointing:
        yield "gradient_checkpointing: is for diffusion models; found it with task classification; leave it out"
    if run.batch_norm == "batch" and run.gradient_accumulation_steps > 1:
        yield (
            f"batch_norm: batch takes the statistics of a whole step, which gradient_accumulation_steps: "
            f"{run.gradient_accumulation_steps} would split; use 1 with a larger train_batch_size, or batch_norm frozen"
        )
    forgets = not isinstance(run.update, RetainOnly)
    if run.mask.name == "fisher_ratio" and not forgets:
        yield "mask.name: fisher_ratio masks the forget gradient, which update.name retain_only never takes; use none"
    if run.ema_decay is not None and run.batch_norm == "batch":
        yield "ema_decay: batch_norm batch keeps statistics of the last weights, not of their average; use frozen"
    alone: dict[str, str] = {"mask.name": run.mask.name, "start.name": run.start.name}
    alone |= {"forget_loss.name": run.forget_loss.name} if forgets else {}
    for key, name in alone.items():
        if run.mixed_precision == "fp16" and name in UNSCALED:
            yield f"mixed_precision: {key} {name} takes gradients that fp16 would need to scale; use bf16 or no"


def mismatched(run: UnlearningRun) -> Iterator[str]:
    """What of losses and mask does not go together."""
    yield from unfit_losses(run.forget_loss, run.retain_loss, run.mask)
    if (file := getattr(run.mask, "file", None)) is not None and not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        yield f"mask.file: {file} {what}; give the {MASK_FILE} of an earlier run, or leave it out"


def inputs_of(run: UnlearningRun) -> dict[str, object]:
    """The files and folders that a run reads, by their keys."""
    asked = {"data": ("path", "test", "dataset"), "model": ("checkpoint", "architecture")}
    asked |= {"forget": ("file",), "mask": ("file",)}
    return {f"{part}.{key}": getattr(getattr(run, part), key, None) for part, keys in asked.items() for key in keys}
