"""A classifier's unlearning in words, for pages: what is forgotten, and by which method."""

from __future__ import annotations

from erase.classification.forget_sets import Classes, Listed, Random
from erase.classification.masks import NoMask
from erase.classification.starts import Trained
from erase.training.unlearning_settings import UnlearningRun
from erase.updates import LUR, AlternatingSteps, ForgetOnly, RetainOnly, TorchJD, Update, WeightedSum


def forgotten(run: UnlearningRun) -> str:
    """What is forgotten: "class 8", "10 % of the training samples"."""
    forget = run.forget
    if isinstance(forget, Classes):
        return f"class {', '.join(forget.labels)}"
    if isinstance(forget, Listed):
        return "samples of a list"
    what = "of the training samples" if isinstance(forget, Random) else "wrong labels"
    return f"{100 * forget.fraction:g} % {what}"


def method(run: UnlearningRun) -> str:
    """Start, update rule, losses and mask: "trim + alternating steps (random label, cross entropy; saliency mask)"."""
    stages = [] if isinstance(run.start, Trained) else [_plain(run.start.name)]
    if run.max_train_steps:
        losses = [] if isinstance(run.update, RetainOnly) else [_plain(run.forget_loss.name)]
        losses += [] if isinstance(run.update, ForgetOnly) else [_plain(run.retain_loss.name)]
        mask = "" if isinstance(run.mask, NoMask) else f"; {_plain(run.mask.name)} mask"
        stages.append(f"{_rule(run.update)} ({', '.join(losses)}{mask})")
    return " + ".join(stages) or "no step"


def _rule(update: Update) -> str:
    if isinstance(update, LUR):
        second = "" if isinstance(update.combine, WeightedSum) else f" with {_rule(update.combine)}"
        return f"LUR {_plain(update.mode)}{second}"
    if isinstance(update, AlternatingSteps) and update.rule is not None:
        return f"{_rule(update.rule)} and retain steps"
    return f"TorchJD {update.aggregator}" if isinstance(update, TorchJD) else _plain(update.name)


def _plain(name: str) -> str:
    return name.replace("_", " ")
