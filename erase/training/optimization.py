"""The optimizer and the learning rate's course, from the settings."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import nn

from erase.errors import UserError
from erase.training.settings import TrainingSettings


def make_optimizer(settings: TrainingSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, AdamW, AdamW with 8-bit moments, or SGD over the parameters."""
    listed, rate, decay = list(parameters), settings.learning_rate, settings.adam_weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=rate, momentum=settings.adam_beta1, weight_decay=decay)
    betas = (settings.adam_beta1, settings.adam_beta2)
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    if settings.optimizer == "adamw8bit":
        check_8bit()
        from bitsandbytes.optim import AdamW8bit

        kind = AdamW8bit
    return kind(listed, lr=rate, betas=betas, eps=settings.adam_epsilon, weight_decay=decay)  # type: ignore[call-arg]


def check_8bit() -> None:
    """Refuses 8-bit moments without the library that has them."""
    if find_spec("bitsandbytes") is None:
        raise UserError("optimizer: adamw8bit needs bitsandbytes; pip install 'erase[8bit]', or choose adamw")


def make_scheduler(settings: TrainingSettings, optimizer: torch.optim.Optimizer) -> Any:
    """One step of it is one optimizer step, on any number of processes."""
    return get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_train_steps,
    )
