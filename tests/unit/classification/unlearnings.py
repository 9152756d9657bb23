"""Tiny unlearnings: eight samples of four pixels, a linear network, and the training loop in a few lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from erase.classification.images import Images, Normalise
from erase.classification.losses import CrossEntropy, ForgetLoss, GradientAscent, RetainLoss
from erase.classification.splits import Splits
from erase.classification.task import UnlearningTask
from erase.parameters import Full, Parameters
from erase.protocols import Shard, UpdateRule, UpdateState
from tests.unit.classification.softmax_regression import Array, Samples

PIXELS, BATCH = 4, 4
NORMALISE = Normalise((0.5,), (0.5,))
LABELS = {2: [0, 1, 1, 0, 1, 0, 0, 1], 3: [0, 1, 2, 0, 2, 0, 1, 1]}


def images(count: int, labels: list[int], name: str) -> Images:
    source = torch.Generator().manual_seed(len(name))
    pixels = torch.randint(256, (count, 1, 2, 2), generator=source, dtype=torch.uint8)
    return Images(pixels, torch.tensor(labels), tuple(f"{name}{number}" for number in range(count)))


def tiny_splits(classes: int = 3) -> Splits:
    """Four samples to forget, four to keep."""
    train = images(8, LABELS[classes], "train")
    none = train.take([])
    return Splits(
        train=train,
        forget=train.take(range(4)),
        retain=train.take(range(4, 8)),
        validation=none,
        test=none,
        test_forgotten=none,
        classes=tuple("abc"[:classes]),
        normalise=NORMALISE,
        seed=0,
    )


def linear(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Logits x W^T; it is called `fc`."""
    torch.manual_seed(seed)
    network = nn.Sequential()
    network.add_module("flat", nn.Flatten())
    network.add_module("fc", nn.Linear(PIXELS, classes, bias=False))
    return network


def two_layers(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU, linear."""
    torch.manual_seed(seed)
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(1, 3, 1))
    network.add_module("norm", nn.BatchNorm2d(3))
    network.add_module("act", nn.ReLU())
    network.add_module("flat", nn.Flatten())
    network.add_module("drop", nn.Dropout(0.5))
    network.add_module("fc", nn.Linear(3 * PIXELS, classes))
    return network


def make_task(
    losses: tuple[ForgetLoss, RetainLoss] = (GradientAscent(), CrossEntropy()),
    model: nn.Module | None = None,
    *,
    classes: int = 3,
    parameters: Parameters | None = None,
    **given: Any,
) -> UnlearningTask:
    options: dict[str, Any] = {"total_steps": 4, "fresh": lambda: linear(classes, seed=9)} | given
    network = linear(classes) if model is None else model
    return UnlearningTask(network, parameters or Full(), losses, tiny_splits(classes), **options)


def train(
    task: UnlearningTask,
    rule: UpdateRule,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    shard: Shard | None = None,
    first: int = 0,
) -> UnlearningTask:
    """What the training loop does: objectives, rule, optimizer, after_step; descent of rate 0.5 if none is given."""
    parameters, state = list(task.trainable.values()), UpdateState(step=first)
    optimizer = optimizer or torch.optim.SGD(parameters, lr=0.5)
    for step in range(first, first + steps):
        retain, forget = task.objectives(step, shard or Shard(batch_size=BATCH))
        rule(retain, forget, parameters, state)
        optimizer.step()
        task.after_step()
    return task


def weights(model: nn.Module) -> Array:
    """The linear network's W, in float64."""
    weight: Tensor = model.get_parameter("fc.weight")
    return weight.detach().double().numpy().copy()


def samples(part: Images) -> Samples:
    """The part as numpy sees it."""
    inputs = (part.pixels.double().flatten(1).numpy() / 255 - 0.5) / 0.5
    return Samples(inputs, part.labels.numpy().astype(np.int64))


def gradient(task: UnlearningTask, forgetting: bool, shard: Shard | None = None, step: int = 0) -> Tensor:
    """One objective's gradient at the present weights, as one vector."""
    objective = task.objectives(step, shard or Shard(batch_size=BATCH))[forgetting]
    task.model.zero_grad()
    for loss in objective():
        loss.backward()
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in task.trainable.values()])
