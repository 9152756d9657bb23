"""Runs of the real loop on a real tiny UNet, for the tests of the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from erase.diffusion.losses import NegativeGuidance, TeacherDistillation
from erase.diffusion.task import ErasureTask
from erase.parameters import CrossAttentionKV
from erase.protocols import Objective, Shard
from erase.training.loop import TrainingRun
from erase.training.settings import TrainingSettings
from tests.tiny import tiny_pipeline
from tests.unit.diffusion.material import circle_examples, star_examples, told_of


class WatchedTask(ErasureTask):
    """The real task; ``before`` is called with each step's number, as a user's signal might come."""

    def __init__(self, **given: Any) -> None:
        pipeline = tiny_pipeline()
        pipeline.unet.eval()
        losses, pools = (NegativeGuidance(), TeacherDistillation()), (star_examples(), circle_examples())
        super().__init__(pipeline, CrossAttentionKV(), losses, pools, told_of(pipeline), **given)
        self.before: Callable[[int], object] = lambda _: None

    def objectives(self, step: int, shard: Shard) -> tuple[Objective, Objective]:
        self.before(step)
        return super().objectives(step, shard)


class WatchedRun(TrainingRun):
    """The real loop over the watched task."""

    task: WatchedTask


def make_run(folder: Path, **given: Any) -> WatchedRun:
    folder.mkdir(exist_ok=True)
    common: dict[str, Any] = {"max_train_steps": 4, "train_batch_size": 2, "learning_rate": 1e-2}
    settings = TrainingSettings(**(common | {"output_dir": folder, "checkpointing_steps": 2} | given))
    task = WatchedTask(forget_weight=settings.forget_weight, seed=settings.seed)
    return WatchedRun(task, settings, Accelerator(), {"config": {"seed": settings.seed}})


def weights(run: WatchedRun) -> list[Tensor]:
    return [p.detach().clone() for p in run.parameters]
