"""FSDP2: the model's weights, gradients and moments spread over the processes, as `accelerate launch` says."""

from __future__ import annotations

import os
from collections.abc import Iterator

from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn

from erase.protocols import Task
from erase.sharded import refresh, shard
from erase.training.settings import TrainingSettings
from erase.updates import LUR, key_of, of_torchjd, rule_of

CONFIG = "configs/accelerate/fsdp.yaml"


def sharding_is_on() -> bool:
    """Whether `accelerate launch` was told to use FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def sharding_problems(run: TrainingSettings) -> Iterator[str]:
    """What cannot be done with rows of parameters."""
    if "RANK" not in os.environ:
        yield "fsdp: needs processes; start the run by accelerate launch"
    asked = os.environ.get("FSDP_VERSION", "1")
    if asked != "2":
        yield f"fsdp_version: found {asked} in accelerate's config; this needs 2, see {CONFIG}"
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        yield f"fsdp_offload_params: found true in accelerate's config; it must be false, see {CONFIG}"
    if run.optimizer == "adamw8bit":
        yield "optimizer: adamw8bit quantises blocks that do not end where rows do; with FSDP use adamw"
    if run.compile:
        yield "compile: does not go together with FSDP here; leave it out"
    rule, key = rule_of(run.update), key_of(run.update)
    if isinstance(rule, LUR) and rule.mode == "exact":
        yield f"{key}.mode: exact differentiates twice, which FSDP cannot; use chained"
    for place, each in of_torchjd(run.update).items():
        if not hasattr(each.module, "gramian_weighting"):
            yield f"{place}: {each.aggregator} looks at whole gradients, of which FSDP's processes have rows"


def shard_task(task: Task, model: nn.Module) -> None:
    """Cuts the task's model up, in place, in the units that accelerate's config or the model itself names."""
    plugin = FullyShardedDataParallelPlugin()
    kinds = set(plugin.transformer_cls_names_to_wrap or getattr(model, "_no_split_modules", None) or ())
    shard(model, [name for name, part in model.named_modules() if name and type(part).__name__ in kinds])
    refresh(task.trainable, model)
