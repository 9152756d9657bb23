"""How many denoiser evaluations a run takes, known before it is made: its own update rule and losses run on a toy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from erase.diffusion.batch import Batch
from erase.diffusion.conditioning import Conditioning
from erase.diffusion.denoiser import Denoiser, EvaluationCounter
from erase.diffusion.losses import ForgetLoss, RetainLoss
from erase.diffusion.prediction import Diffusion
from erase.diffusion.settings import Plan
from erase.protocols import Objective, UpdateState
from erase.randomness import derive
from erase.training.erasure import ErasureRun
from erase.training.settings import TrainingSettings


@dataclass(frozen=True)
class Evaluations:
    """Denoiser evaluations, one an example, as :class:`erase.training.erasure.Counts` has them after the run."""

    latents: int
    """To make all latents; what is cached already costs nothing."""
    training: int
    """Of the training steps, in each process, the frozen base's among them."""
    exact: bool
    """False where a batch may mix targets that cost more with ones that cost less: then it is the most it can be."""

    def describe(self) -> str:
        """The counts in a line."""
        most = "" if self.exact else "at most "
        return (
            f"denoiser evaluations: {self.latents:,} for latents, fewer where they are cached; "
            f"{most}{self.training:,} in training, in each process"
        )


def count_latents(run: ErasureRun, plan: Plan, scheduler: Any) -> int:
    """Evaluations that making the latents takes with the base's scheduler; guidance asks twice for each step."""
    latents, targets = run.latents, len(plan.targets)
    count = targets * max(1, latents.forget // targets)
    count += neutral_latents(run, plan)
    count += 0 if run.retain_loss.needs_images else latents.retain
    sampler = type(scheduler).from_config(scheduler.config)
    sampler.set_timesteps(latents.steps)
    return count * len(sampler.timesteps) * (2 if latents.guidance_scale > 1 else 1)


def neutral_latents(run: ErasureRun, plan: Plan) -> int:
    """Pictures without the concept that are made: none of a target that has no wording without it."""
    return run.latents.neutral // len(plan.targets) * sum(any(target.without) for target in plan.targets)


def count_evaluations(run: ErasureRun, plan: Plan, scheduler: Any) -> Evaluations:
    """What a run takes from its first step to its last."""
    pairs = (pair for target in plan.targets for pair in zip(target.concepts, target.prompts, strict=True))
    alike = {said == asked for said, asked in pairs}
    retain, forget = target_cost(run.retain_loss, True), target_cost(run.forget_loss, alike == {True})
    each = sum(sum(seen) + (retain if seen[0] else 0) + (forget if seen[1] else 0) for seen in looks(run))
    examples = run.train_batch_size * run.gradient_accumulation_steps
    exact = len(alike) == 1 or target_cost(run.forget_loss, True) == forget
    return Evaluations(count_latents(run, plan, scheduler), each * examples, exact)


def looks(run: TrainingSettings) -> Iterator[tuple[int, int]]:
    """How often each step looks at the retain and at the forget objective, its probes included."""
    parameter, state = nn.Parameter(torch.ones(2)), UpdateState(seed=derive(run.seed, "update"))
    seen = {"retain": 0, "forget": 0}

    def toy(name: str, curvature: Tensor) -> Objective:
        def evaluate() -> Iterator[Tensor]:
            seen[name] += 1
            yield (curvature * parameter.square()).sum()

        return evaluate

    both = toy("retain", torch.tensor([1.0, 2.0])), toy("forget", torch.tensor([2.0, 1.0]))
    for step in range(1, run.max_train_steps + 1):
        probed = 2 if run.probe_every and step % run.probe_every == 0 else 0  # before and after
        seen |= {"retain": probed, "forget": probed}
        run.update(*both, [parameter], state)
        yield seen["retain"], seen["forget"]


def target_cost(loss: ForgetLoss | RetainLoss, in_context: bool) -> int:
    """Evaluations of the frozen base that one example's target takes; ``in_context``: the prompt says the concept."""
    unet, counter = _Silent(), EvaluationCounter()
    one, other = (Conditioning(torch.full((1, 1, 1), float(value))) for value in range(2))
    latents = torch.zeros(1, 1, 1, 1)
    batch = Batch(
        latents=latents,
        noise=latents,
        timesteps=torch.zeros(1, dtype=torch.int64),
        prompt=one,
        concept=one if in_context else other,
        anchor=other,
        baseline=other,
        shows=torch.ones(1, dtype=torch.bool),
        weight=torch.ones(1),
        texts=("",),
    )
    with counter.watch(unet):
        loss.target(Denoiser(cast(Any, unet), Diffusion(torch.ones(1))), batch)
    return counter.count


class _Silent(nn.Module):
    """A UNet's face, and nothing behind it."""

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor, **_: object) -> SimpleNamespace:
        """No noise at all."""
        return SimpleNamespace(sample=torch.zeros_like(noisy))
