"""The training loop: two objectives, one update rule, one optimizer step; the same for every domain."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from erase.errors import UserError
from erase.gradients import gathering, gradient_norm, mean_over_processes
from erase.protocols import Diagnostics, Objective, Shard, Task, UpdateState
from erase.randomness import derive
from erase.sharded import is_sharded, rows_of
from erase.training.alignment import Blocks, probe
from erase.training.checkpoint import PREFIX, find_checkpoint, latest, prune, restore_checkpoint, save_checkpoint
from erase.training.cost import Cost
from erase.training.interruption import Interrupted, Interruption
from erase.training.loss_scale import LossScale
from erase.training.optimization import make_optimizer, make_scheduler
from erase.training.settings import TrainingSettings
from erase.training.step_log import StepLog
from erase.updates import LUR, key_of, remembering, rule_of
from erase.updates.alpha import AbsoluteAlpha


class TrainingRun:
    """A task being trained: parameters, optimizer, schedule and the update rule's state."""

    def __init__(
        self, task: Task, settings: TrainingSettings, accelerator: Accelerator, identity: Mapping[str, Any]
    ) -> None:
        self.task, self.settings, self.accelerator = task, settings, accelerator
        self.parameters = [rows_of(p) for p in task.trainable.values()]
        self.sharded = is_sharded(self.parameters)
        self.trained: dict[str, Tensor] = {**dict(zip(task.trainable, self.parameters, strict=True)), **task.buffers}
        self.scale = LossScale() if settings.mixed_precision == "fp16" else None
        self.average = EMAModel(self.parameters, decay=settings.ema_decay) if settings.ema_decay else None
        self.blocks = Blocks(self.parameters, task.blocks)
        self.told: dict[str, float] = {}
        """What the present step tells of blocks, and its probes."""
        self.optimizer = make_optimizer(settings, self.parameters)
        self.scheduler = make_scheduler(settings, self.optimizer)
        self.state = UpdateState(seed=derive(settings.seed, "update"))
        self.shard = Shard(
            accelerator.process_index,
            accelerator.num_processes,
            settings.gradient_accumulation_steps,
            settings.train_batch_size,
        )
        self.identity = dict(identity) | {"total_batch": self.shard.total}
        self.saved_at, self.started, self.learning_rate = -1, time.monotonic(), settings.learning_rate
        self.cost_before, self.gradient_evaluations = Cost(), 0
        self.repeated = 0
        """What the task evaluated again before it went on from a checkpoint, whose cost has it."""

    def resume(self) -> None:
        """Goes on from the checkpoint that the settings name."""
        if self.settings.resume_from_checkpoint:
            folder = find_checkpoint(self.settings.resume_from_checkpoint, self.settings.output_dir)
            kept = (self.trained, self.optimizer, self.scheduler, self.identity)
            self.state, self.cost_before = restore_checkpoint(folder, *kept, average=self.average, scale=self.scale)
            self.saved_at, self.repeated = self.state.step, self.task.evaluations

    def train(self) -> Cost:
        """Runs the steps that are left, and returns what all of them cost; the weights are then the result's."""
        settings = self.settings
        main, interruption, self.started = self.accelerator.is_main_process, Interruption(), time.monotonic()
        log = StepLog(settings.output_dir, self.state.step) if main else None
        bar = tqdm(total=settings.max_train_steps, initial=self.state.step, desc="erasing", disable=not main)
        try:
            with interruption.listen():
                while self.state.step < settings.max_train_steps:
                    scale, seen = self.scale.value if self.scale else None, self.step()
                    self.gradient_evaluations += seen.evaluations
                    self.report(seen, log, bar, scale)
                    stop = interruption.agreed(self.accelerator.device)
                    if stop or self.state.step % settings.checkpointing_steps == 0:
                        self.save()
                    if stop and self.state.step < settings.max_train_steps:
                        raise Interrupted(self._how_to_go_on(), interruption.received or 15)
            self.save()
            if self.average:
                self.average.copy_to(self.parameters)
        finally:
            bar.close()
            if log is not None:
                log.close()
        return self.cost()

    def step(self) -> Diagnostics:
        """One update; a loss or gradient that is not finite never reaches the weights.

        In fp16 such a step is passed over, with a smaller scale for the next ones; else it ends the run.
        """
        step, before = self.state.step, replace(self.state)
        kept = {name: buffer.clone() for name, buffer in self.task.buffers.items()} if self.scale else {}
        retain, forget = self.task.objectives(step, self.shard)
        every, self.told = self.settings.probe_every, {}
        probing = every > 0 and (step + 1) % every == 0
        # a task with running statistics lets them follow its first look, which must be the rule's
        probed = self.task.objectives(step, self.shard) if probing and self.task.buffers else (retain, forget)
        self.learning_rate = self.optimizer.param_groups[0]["lr"]
        with gathering(1.0 if self.scale is None else self.scale.value, self.sharded):
            if probing:
                self.probe("before", *probed)
            seen = self.settings.update(retain, forget, self.parameters, self.state)
            self.told |= self.blocks.numbers(seen, self.settings.forget_weight)
            norm = gradient_norm(self.parameters)
            numbers = (seen.retain_loss, seen.forget_loss, seen.retain_norm, seen.forget_norm, norm.item())
            finite = all(number is None or math.isfinite(number) for number in numbers)
            if finite:
                self.blocks.count_conflicts(self.told, self.state)
                self._move(norm)
            elif self.scale is None or not self.scale.learn(False):
                raise UserError(*self._explain_non_finite(step, seen))
            else:
                self.state = replace(before, step=step + 1)
                self._put_back(kept)
            if probing:
                self.probe("after", *probed)
        return seen.without_sketches()

    def _put_back(self, kept: Mapping[str, Tensor]) -> None:
        """The task's buffers as they were."""
        for name, buffer in self.task.buffers.items():
            buffer.copy_(kept[name])

    def _move(self, norm: Tensor) -> None:
        """The optimizer's step, and all that follows it."""
        if self.settings.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.max_grad_norm, norm)
        self.optimizer.step()
        self.task.after_step()
        self.scheduler.step()
        if self.average:
            self.average.step(self.parameters)
        if self.scale:
            self.scale.learn(True)

    def probe(self, when: str, retain: Objective, forget: Objective) -> None:
        """<g_f, g_r> and cosine of this step's batch at the present weights; no part of the update."""
        kept = {name: buffer.clone() for name, buffer in self.task.buffers.items()}
        sketches = probe(retain, forget, self.parameters)
        self._put_back(kept)
        self.told |= self.blocks.probed(*sketches, when, self.settings.forget_weight)

    def report(self, seen: Diagnostics, log: StepLog | None, bar: Any, scale: float | None) -> None:
        """Step log, trackers and progress bar; the forget loss and norm are shown without their weight.

        ``cosine`` is what the rule saw, for LUR at the look-ahead; ``cosine_before`` and ``cosine_after`` are at the
        weights before and after the update, for every rule. What is not finite, as a step skipped
        for its loss scale may see, is ``None``; the scale is shown too.
        """
        weight = self.settings.forget_weight
        values = seen.numbers() | {
            "forget_loss": None if seen.forget_loss is None else seen.forget_loss / weight,
            "forget_norm": None if seen.forget_norm is None else seen.forget_norm / weight,
            "conflict_share": self.state.conflict_share,
            "learning_rate": self.learning_rate,
        }
        values |= dict.fromkeys(("inner_before", "inner_after", "cosine_before", "cosine_after"))
        values |= self.blocks.conflict_shares(self.state) | self.told
        values = {key: v if v is None or math.isfinite(v) else None for key, v in values.items()}
        if scale:
            values["loss_scale"] = scale
        self.accelerator.log({k: v for k, v in values.items() if v is not None}, step=self.state.step)
        bar.update()
        shown = {"forget": values["forget_loss"], "retain": seen.retain_loss}
        shown_cosine = {} if seen.cosine is None else {"cosine": f"{seen.cosine:+.2f}"}
        bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items() if v is not None} | shown_cosine)
        if log is not None:
            log.write({"step": self.state.step, **values})

    def cost(self) -> Cost:
        """What the run cost up to now; every process must ask at the same time."""
        mean = mean_over_processes(self.task.evaluations - self.repeated, self.accelerator.device)
        seconds = time.monotonic() - self.started
        total = round(mean * self.accelerator.num_processes)
        return self.cost_before + Cost(self.gradient_evaluations, total, seconds)

    def save(self) -> None:
        """A checkpoint of this step, written by the main process while the others wait."""
        cost, main = self.cost(), self.accelerator.is_main_process
        if self.saved_at != self.state.step and (main or self.sharded):
            folder = self.settings.output_dir / f"{PREFIX}{self.state.step}"
            kept = (self.trained, self.optimizer, self.scheduler, self.state, cost, self.identity)
            save_checkpoint(folder, *kept, average=self.average, scale=self.scale, writes=main)
        if main:
            prune(self.settings.output_dir, self.settings.checkpoints_total_limit)
        self.saved_at = self.state.step
        self.accelerator.wait_for_everyone()

    def _how_to_go_on(self) -> str:
        said = f"Interrupted after step {self.state.step} of {self.settings.max_train_steps}; saved "
        said += f"{self.settings.output_dir / f'{PREFIX}{self.state.step}'}. "
        if forgetful := remembering(self.settings.update):
            return f"{said}It cannot go on: what {', '.join(forgetful)} remembers of past steps is in no checkpoint"
        return f"{said}To go on, run the same command with --resume_from_checkpoint latest"

    def _explain_non_finite(self, step: int, seen: Diagnostics) -> list[str]:
        last: Path | None = latest(self.settings.output_dir)
        return [
            f"step {step + 1}: the loss is not finite: forget {seen.forget_loss}, retain {seen.retain_loss} "
            f"(gradient norms {seen.forget_norm}, {seen.retain_norm})",
            f"the batch: {'; '.join(self.task.describe_batch(step, self.shard))}",
            f"last checkpoint: {last or 'none was written'}; it goes on with its own settings alone, so start again "
            f"with {self._gentler()}",
        ]

    def _gentler(self) -> str:
        """What may be made smaller where a run did not stay finite."""
        update = rule_of(self.settings.update)
        keys = ["learning_rate", *([] if update.name in ("nash", "retain_only") else ["forget_weight"])]
        if isinstance(update, LUR):
            last = "value" if isinstance(update.alpha, AbsoluteAlpha) else "ratio"
            keys.append(f"{key_of(self.settings.update)}.alpha.{last}")
        return f"a smaller {' or '.join(keys)}"
