"""LUR's correction on a real UNet in training: what the cheap modes add to the plain sum is what `exact` adds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from erase.config import load
from erase.diffusion.prepare import load_base, prepare
from erase.diffusion.settings import make_plan
from erase.diffusion.task import ErasureTask
from erase.protocols import Shard, UpdateRule, UpdateState
from erase.training.erasure import ErasureRun
from erase.updates import LUR, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from erase.updates.lur import coin
from tests.launch import train
from tests.tiny import save_tiny, write_config

STEPS = 8


@dataclass
class Trained:
    """A run after some steps: the gradient that a rule gives there, and the alpha that the run had arrived at."""

    gradient: Callable[[UpdateRule, int], Tensor]
    alpha: float

    def correction(self, mode: Any, step: int = 1, scale: float = 1.0) -> Tensor:
        rule = LUR(mode=mode, alpha=AbsoluteAlpha(value=scale * self.alpha), measure_every=0)
        return self.gradient(rule, step) - self.gradient(WeightedSum(), step)


@pytest.fixture(scope="module", params=["tiny", "shapes"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """On a tiny UNet of random weights, and on the embedded model's."""
    folder = tmp_path_factory.mktemp("trained")
    model, rate = (save_tiny(folder / "model"), "1.0e-3") if request.param == "tiny" else (Path("shapes"), "2.0e-4")
    config = write_config(folder, model, max_train_steps=str(STEPS), learning_rate=rate)
    assert train(config) == 0
    checkpoint = folder / "run" / f"checkpoint-{STEPS}"
    run = load(ErasureRun, config)
    plan = make_plan(run)
    base = load_base(run, plan, torch.device("cpu"))
    prepared = prepare(base, run, plan, run.seed, quiet=True)
    losses, pools = (run.forget_loss, run.retain_loss), (prepared.forget, prepared.retain)
    task = ErasureTask(base.pipeline, run.parameters, losses, pools, prepared.told, seed=run.seed)
    weights = load_file(checkpoint / "trainable.safetensors")
    with torch.no_grad():
        for name, p in task.trainable.items():
            p.copy_(weights[name])
    retain, forget = task.objectives(STEPS, Shard(batch_size=run.train_batch_size))
    parameters = list(task.trainable.values())

    def gradient(rule: UpdateRule, step: int) -> Tensor:
        rule(retain, forget, parameters, UpdateState(step=step))
        return torch.cat([p.grad.flatten().double() for p in parameters if p.grad is not None])

    return Trained(gradient, json.loads((checkpoint / "state.json").read_text())["update"]["alpha"])


def cosine(left: Tensor, right: Tensor) -> float:
    return (torch.dot(left, right) / (left.norm() * right.norm())).item()


def test_the_default_alpha_s_correction_is_a_tenth_of_the_sum(trained: Trained) -> None:
    share = trained.correction("exact").norm() / trained.gradient(WeightedSum(), 1).norm()
    assert 0.03 < share < 0.3


def test_chained_corrects_as_exact_does(trained: Trained) -> None:
    """In float32, whose rounding is 1e-6 of a correction this large; the rest is the difference quotient's error."""
    chained, exact = trained.correction("chained"), trained.correction("exact")
    assert cosine(chained, exact) >= 0.99
    assert 0.8 < chained.norm() / exact.norm() < 1.25


@pytest.mark.parametrize(("scale", "agreement"), [(1.0, 0.95), (0.5, 0.99)])
def test_alternating_corrects_as_exact_does_on_average(trained: Trained, scale: float, agreement: float) -> None:
    """Unbiased to second order in alpha, at twice its step: what disagrees falls to a quarter with half of alpha."""
    heads, tails = (next(s for s in range(99) if coin(UpdateState(step=s)) is side) for side in (True, False))
    both = [trained.correction("alternating", step, scale) for step in (heads, tails)]
    assert cosine(both[0] + both[1], trained.correction("exact", scale=scale)) >= agreement
    assert cosine(both[0], both[1]) < 0.9, "each order carries its own half"


def test_first_order_does_not(trained: Trained) -> None:
    """Negative control: half of the alignment term is missing, and no smaller alpha brings it back."""
    missing = 1 - cosine(trained.correction("first_order"), trained.correction("exact"))
    assert missing > 10 * (1 - cosine(trained.correction("chained"), trained.correction("exact")))
    assert (
        1 - cosine(trained.correction("first_order", scale=0.5), trained.correction("exact", scale=0.5)) > missing / 3
    )
