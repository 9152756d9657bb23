"""The settings of a run that no domain changes; diffusers' training scripts give the names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT, Name, Place
from erase.parameters import Full, Parameters
from erase.updates import LUR, Update

FREE_ON_RESUME = (
    "output_dir",
    "overwrite",
    "resume_from_checkpoint",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "report_to",
    "logging_dir",
    "latents.cache_dir",
    "latents.batch_size",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
)
"""Settings that may differ between a checkpoint and the run that goes on from it."""
ROUNDING = ("train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "probe_every", "save_merged")
"""These too, by which weights differ in their rounding alone: how a batch of one size is divided, what is looked at."""


def _yaml_no(value: object) -> object:
    """YAML reads a bare ``no`` as false."""
    return "no" if value is False else value


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrainingSettings:
    """How a model is trained, whatever it is."""

    output_dir: Place
    """where the result goes; must be empty unless resuming or `overwrite`"""
    overwrite: bool = False
    """empty the output folder first, if it holds an earlier run"""
    seed: Annotated[int, Field(ge=0)] = 0
    """seed of batches, noise and initial adapters"""
    update: Annotated[Update, Field(discriminator="name")] = LUR()
    """how the forget and the retain gradient are combined"""
    parameters: Annotated[Parameters, Field(discriminator="name")] = Full()
    """which weights move"""
    forget_weight: Annotated[float, Field(gt=0)] = 1.0
    """lambda, factor on the forget loss. nash, as `update` or as `update.rule`, takes the gradients as directions
    alone, so it changes nothing there; nor with retain_only, which has no forget loss"""
    probe_every: Annotated[int, Field(ge=0)] = 50
    """steps between looks at both gradients of one batch at the same weights, before and after an update (`inner_*`,
    `cosine_*`, which compare between rules); 0: never. Each look takes 4 gradient evaluations: the count of those
    leaves them out, the count of model evaluations has them"""
    max_train_steps: Annotated[int, Field(ge=1)] = 150
    """optimizer steps"""
    train_batch_size: Annotated[int, Field(ge=1)] = 16
    """examples of each objective per process and micro-batch"""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """micro-batches whose gradients are gathered before they are combined"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, more time"""
    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(_yaml_no)] = "no"
    """precision of the forward passes; trained weights and gradients stay float32. fp16 scales the losses: a step
    whose gradient overflows is skipped and halves the scale"""
    compile: bool = False
    """torch.compile of the denoiser: faster steps after minutes of compiling; diffusion models only"""
    optimizer: Literal["adamw", "adamw8bit", "adam", "sgd"] = "adamw"
    """torch's optimizers; adamw8bit: bitsandbytes' (`pip install erase[8bit]`), moments in a quarter of the memory"""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """peak learning rate"""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """decay of the first moment; the momentum of sgd"""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """decay of the second moment"""
    adam_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """weight decay"""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """added to the second moment's root"""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """the result is a moving average of the trained weights with this decay, at step t at most t / (9 + t); null: the
    last step's weights"""
    max_grad_norm: Annotated[float, Field(ge=0)] = 0.0
    """clips the combined gradient's norm; 0: no clipping"""
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """course of the learning rate"""
    lr_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """steps over which the learning rate rises from 0; fewer than `max_train_steps`"""
    checkpointing_steps: Annotated[int, Field(ge=1)] = 500
    """steps between checkpoints"""
    checkpoints_total_limit: Annotated[int, Field(ge=1)] | None = None
    """keep the newest so many checkpoints"""
    resume_from_checkpoint: Name | None = None
    """`latest`, or the folder of a checkpoint"""
    report_to: Literal["none", "tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "all"] = "none"
    """tracker that accelerate logs to"""
    logging_dir: str = "logs"
    """the tracker's folder, inside the output folder"""
