"""A classifier unlearned, from settings to a folder: data, splits, start, loop, the result and how it was made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from erase.classification.batch_norm import has_batch_norm
from erase.classification.checkpoints import (
    check_labels,
    checkpoint_normalise,
    described,
    saved_classes,
    transformers_folder,
)
from erase.classification.fit import batch_norm_problems, unfit
from erase.classification.heads import unfit_head
from erase.classification.losses import Distillation, TeacherDivergence
from erase.classification.masks import Saliency, check_mask, hash_weights
from erase.classification.models import make_model
from erase.classification.networks import Logits
from erase.classification.splits import Splits, make_splits
from erase.classification.starts import Trim
from erase.classification.task import UnlearningTask
from erase.config import dump
from erase.errors import UserError, refuse
from erase.provenance import held, write_json
from erase.randomness import derive
from erase.training.interruption import Interrupted
from erase.training.launch import (
    autocast,
    describe_training,
    disconnect,
    end_training,
    make_accelerator,
    start_training,
)
from erase.training.originals import (
    LearnFrom,
    begins_at_random,
    cached_classifier,
    check_cache,
    check_checkpoint,
    check_splits_of,
    continued,
    from_checkpoint,
    from_scratch,
    is_finished,
    needs_original,
)
from erase.training.output import write_result
from erase.training.unlearning_settings import UnlearningRun, check_unlearning
from erase.updates import AlternatingSteps, ForgetOnly, RetainOnly, is_held, label

SPLITS = "splits.json"


@plain_dataclass(frozen=True)
class UnlearningCounts:
    """What a run cost."""

    gradient_evaluations: int
    model_evaluations: int
    """Examples that a model was evaluated on, the frozen original's and the start's among them."""
    seconds: float
    """The start's and the loop's: the run-time efficiency (RTE) of the field. Loading data and model is not in it."""

    def describe(self) -> str:
        """The counts in a line."""
        return (
            f"{self.gradient_evaluations:,} gradient evaluations, {self.model_evaluations:,} examples evaluated, "
            f"{self.seconds:.1f} s"
        )


def unlearn(run: UnlearningRun) -> UnlearningCounts:
    """Trains, and leaves the classifier, its splits, provenance, settings and step log in ``output_dir``.

    Where no weights are named that are to forget, they are trained first, or taken from the cache.
    """
    check_unlearning(run)
    accelerator = begin(run)
    with accelerator.main_process_first():
        splits = make_splits(run.data, run.forget, run.split_seed)
    if needs_original(run):
        check_model(run, *with_model(run, splits))
    counts = learn(run, with_original(run, splits, accelerator.num_processes), splits, accelerator)
    disconnect(accelerator)
    return counts


def begin(run: UnlearningRun) -> Accelerator:
    """Processes and devices; settings that do not go together with these are refused."""
    accelerator = make_accelerator(run)
    if run.batch_norm == "batch" and accelerator.num_processes > 1:
        raise UserError(
            f"batch_norm: batch needs one process, since each would have statistics of its own; found "
            f"{accelerator.num_processes}; use batch_norm frozen"
        )
    return accelerator


def learn(run: UnlearningRun, first: UnlearningRun, splits: Splits, accelerator: Accelerator) -> UnlearningCounts:
    """The run itself; ``first`` names the weights that it begins with."""
    model, splits = with_model(first, splits)
    refuse(unfit_batch_norm(run, model))
    weights = hash_weights(model)
    model.to(accelerator.device)
    started = time.monotonic()
    task = make_task(run, model, splits, accelerator)
    begun = {} if first.model.checkpoint is None else {"begun_with": weights}
    training = start_training(run, task, accelerator, {"splits": splits.hashes(), **begun})
    before = time.monotonic() - started
    cost = training.train()
    counts = UnlearningCounts(cost.gradient_evaluations, cost.model_evaluations, before + cost.seconds)
    if accelerator.is_main_process:
        made = {**describe(run, splits, task, counts, accelerator), **begun}
        write_result(run.output_dir, partial(save, task, splits), made)
    end_training(training)
    return counts


def save(task: UnlearningTask, splits: Splits, folder: Path) -> None:
    """The classifier and the samples that it was trained on."""
    task.save(folder)
    write_json(folder / SPLITS, splits.record())


def with_original(run: UnlearningRun, splits: Splits, processes: int = 1) -> UnlearningRun:
    """The run with the checkpoint that is to forget; one of other samples than these splits' is refused."""
    if run.model.checkpoint is not None:
        check_checkpoint(run.model.checkpoint, splits)
        return run
    if not needs_original(run):
        return run
    if processes > 1 and not is_finished(cached_classifier(run, splits, "all")):
        raise UserError(
            "model.checkpoint: found null, and the original is not in the cache yet; it is trained by one process: "
            "run the same command on one first, or name a checkpoint"
        )
    return replace(run, model=from_checkpoint(run.model, train_from_scratch(run, splits, "all")))


def train_from_scratch(run: UnlearningRun, splits: Splits, learn_from: LearnFrom) -> Path:
    """The folder of the original (``all``) or of the retrained reference (``retain``), trained unless it is cached.

    One that was interrupted goes on from its last checkpoint; ``run.checkpointing_steps`` are between them.
    """
    folder = cached_classifier(run, splits, learn_from)
    check_cache(folder)
    recipe = replace(from_scratch(run, learn_from), output_dir=folder, checkpointing_steps=run.checkpointing_steps)
    with held(folder.with_name(f".{folder.name}.lock")):
        if not is_finished(folder):
            recipe = continued(recipe, splits)
            try:
                learn(recipe, recipe, splits, begin(recipe))
            except Interrupted as stop:
                what = "original" if learn_from == "all" else "retrained reference"
                said = f"Interrupted while the {what} was trained, which {folder} holds as far as it is"
                raise Interrupted(f"{said}. To go on, run the same command again", stop.exit_code - 128) from None
            return folder
    check_splits_of(folder, splits, "train" if learn_from == "all" else "retain", "the cached classifier")
    return folder


def build_model(run: UnlearningRun, splits: Splits) -> nn.Module:
    """The classifier of the settings; what is drawn at random in it follows from the seed."""
    torch.manual_seed(derive(run.seed, "model"))
    model = make_model(run.model, len(splits.classes), splits.train.channels)
    foreign = transformers_folder(run.model)
    if run.model.checkpoint is not None and (saved := described(run.model.checkpoint)) is not None:
        check_labels(saved_classes(saved), splits.classes, saved)
    if foreign is not None and isinstance(model, Logits):
        check_labels(model.network.config.id2label, splits.classes, foreign)
    return model


def with_model(run: UnlearningRun, splits: Splits) -> tuple[nn.Module, Splits]:
    """The classifier, and the splits as it is shown them."""
    return build_model(run, splits), as_shown(run, splits)


def check_model(run: UnlearningRun, model: nn.Module, splits: Splits) -> None:
    """Refuses a network that the data, batch norm, start or forget loss do not go with, before anything is trained."""
    problems, movable = [*unfit(model, splits), *unfit_batch_norm(run, model)], run.parameters.select(model)
    for part in (run.start, run.mask):
        problems += part.problems(movable) if isinstance(part, Trim | Saliency) else []
    if run.forget_loss.extra_class:
        problems += unfit_head(model, splits)
    if flat := flat_at_start(run, model):
        problems.append(
            f"{flat} has no gradient where the network is the original, which with update {label(dump(run.update))} it "
            "stays; choose another rule, such as alternating_steps"
        )
    refuse(problems)
    check_mask(run.mask, splits)


def flat_at_start(run: UnlearningRun, model: nn.Module) -> str | None:
    """The loss without a slope at the original's weights, seen by the same statistics, that holds the rule there."""
    begins = run.start.name == "trained" and run.adam_weight_decay == 0
    same = run.batch_norm == "frozen" or not has_batch_norm(model)
    forget = isinstance(run.forget_loss, TeacherDivergence)
    retain = isinstance(run.retain_loss, Distillation) and run.retain_loss.gamma == 0
    if not (begins and same) or not is_held(run.update, retain=float(not retain), forget=float(not forget)):
        return None
    return "forget_loss.name: teacher_divergence" if forget else "retain_loss.gamma: distillation with 0"


def as_shown(run: UnlearningRun, splits: Splits) -> Splits:
    """The splits with their pictures normalised as the run's checkpoint knows them."""
    return replace(splits, normalise=checkpoint_normalise(run.model, splits.normalise))


def make_task(run: UnlearningRun, model: nn.Module, splits: Splits, accelerator: Accelerator) -> UnlearningTask:
    """The unlearning as the loop sees it."""
    return UnlearningTask(
        model,
        run.parameters,
        (run.forget_loss, run.retain_loss),
        splits,
        describe=run.model,
        start=run.start,
        mask=run.mask,
        batch_norm=run.batch_norm,
        learn_from=run.learn_from,
        forget_weight=run.forget_weight,
        seed=run.seed,
        total_steps=run.max_train_steps,
        device=accelerator.device,
        autocast=lambda: autocast(run, accelerator.device),
        looked=run.update.looked if isinstance(run.update, AlternatingSteps) else None,
    )


def describe(
    run: UnlearningRun, splits: Splits, task: UnlearningTask, counts: UnlearningCounts, accelerator: Accelerator
) -> dict[str, Any]:
    """The provenance: what was done to which classifier, by what, at what cost."""
    return {
        "forgotten": {"what": dump(run.forget), "samples": len(splits.forget), "hash": splits.hashes()["forget"]},
        "splits": splits.hashes(),
        **describe_training(run, task, vars(counts), accelerator),
    }


def unfit_batch_norm(run: UnlearningRun, model: nn.Module) -> Iterator[str]:
    """What the run's mode of batch norm does not go with."""
    retains = not isinstance(run.update, ForgetOnly)
    return batch_norm_problems(model, run.batch_norm, run.train_batch_size, begins_at_random(run), retains)


def plan_unlearning(run: UnlearningRun) -> str:
    """``--dry_run``: what would be trained on what; zero matched parameters are an error."""
    check_unlearning(run)
    splits = make_splits(run.data, run.forget, run.split_seed)
    if run.model.checkpoint is not None:
        check_checkpoint(run.model.checkpoint, splits)
    model, splits = with_model(run, splits)
    check_model(run, model, splits)
    total = sum(p.numel() for p in model.parameters())
    trainable = run.parameters.select(model)
    examples = run.train_batch_size * run.gradient_accumulation_steps
    losses: list[str] = [] if isinstance(run.update, RetainOnly) else [run.forget_loss.name]
    losses += [] if isinstance(run.update, ForgetOnly) else [run.retain_loss.name]
    return "\n".join(
        [
            f"model: {run.model.source} {run.model.architecture}, {total:,} parameters, {len(splits.classes)} classes",
            f"data: {run.data.name}: {len(splits.train):,} to train on, {len(splits.validation):,} for validation, "
            f"{len(splits.test):,} to test",
            f"forget: {run.forget.name}: {len(splits.forget):,} samples, hash {splits.hashes()['forget'][:12]}",
            f"start: {run.start.name}; update: {label(dump(run.update))}, losses {' + '.join(losses)}; "
            f"mask: {run.mask.name}",
            f"parameters: {run.parameters.name}: {len(trainable)} tensors, "
            f"{sum(p.numel() for p in trainable.values()):,} numbers",
            f"steps: {run.max_train_steps}, each of {examples} examples of each objective a process",
        ]
    )
