"""The original and the retrained reference: their recipe's run, where each is kept, and who needs one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

from erase.classification.checkpoints import CONFIG, describe, described
from erase.classification.masks import NoMask
from erase.classification.model_settings import ModelSettings
from erase.classification.splits import Splits
from erase.classification.starts import Scratch, Trained
from erase.config import dump
from erase.errors import UserError
from erase.provenance import check_writable, default_cache, hash_folder, hash_json, read_json
from erase.training.checkpoint import check_identity, latest, read_state
from erase.training.output import PROVENANCE
from erase.training.unlearning_settings import UnlearningRun
from erase.updates import ForgetOnly, RetainOnly

LearnFrom = Literal["all", "retain"]


def needs_original(run: UnlearningRun) -> bool:
    """Whether anything of a run looks at the weights that are to forget: its start, its mask or a loss."""
    forgets, retains = not isinstance(run.update, RetainOnly), not isinstance(run.update, ForgetOnly)
    asked = (forgets and run.forget_loss.needs_original) or (retains and run.retain_loss.needs_original)
    first = Scratch | Trained if run.learn_from == "all" else Scratch
    return asked or not isinstance(run.mask, NoMask) or not isinstance(run.start, first)


def begins_at_random(run: UnlearningRun) -> bool:
    """Whether the first weights are drawn, not learned."""
    learned = run.model.checkpoint is not None or run.model.pretrained or run.learn_from == "retain"
    return isinstance(run.start, Scratch) or not learned


def from_checkpoint(settings: ModelSettings, folder: Path) -> ModelSettings:
    """The same network with a saved classifier's weights, in place of published ones."""
    revision = settings.revision if settings.source == "transformers" else None
    return replace(settings, checkpoint=folder, pretrained=False, replace_head=False, revision=revision)


def cached_classifier(run: UnlearningRun, splits: Splits, learn_from: LearnFrom) -> Path:
    """Where a classifier of this recipe, on these samples, is kept; an original knows nothing of what is forgotten."""
    config, hashes = dump(from_scratch(run, learn_from)) | {"output_dir": None}, splits.hashes()
    identity = [config, hashes["retain"]]
    if learn_from == "all":
        identity = [config | {"forget": None, "split_seed": None}, hashes["train"]]
    network = Path(run.model.architecture)
    if run.model.pretrained and network.is_dir():
        identity.append(hash_folder(network))
    elif run.model.source == "transformers" and (network / CONFIG).is_file():
        identity.append(read_json(network / CONFIG, "model.architecture"))
    return default_cache() / "classifiers" / hash_json(identity)[:24]


def is_finished(folder: Path) -> bool:
    """Whether a run has written all that it leaves; the provenance is the last of it."""
    return (folder / PROVENANCE).is_file()


def check_cache(folder: Path) -> None:
    """Refuses a cache that cannot be written, before anything is trained for it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = "set the environment's ERASE_CACHE to a folder that can be written"
        raise UserError(f"ERASE_CACHE: {default_cache()} cannot be made: {error.strerror}; {rule}") from None
    check_writable(folder, "ERASE_CACHE")


def from_scratch(run: UnlearningRun, learn_from: LearnFrom) -> UnlearningRun:
    """The recipe's run: the same data and network, its own schedule, and nothing to forget."""
    recipe = run.original
    return UnlearningRun(
        task="classification",
        data=run.data,
        forget=run.forget,
        split_seed=run.split_seed,
        seed=run.seed,
        model=replace(run.model, checkpoint=None),
        original=recipe,
        start=Trained() if run.model.pretrained else Scratch(),
        update=RetainOnly(),
        learn_from=learn_from,
        batch_norm="batch",
        max_train_steps=recipe.max_train_steps,
        train_batch_size=recipe.train_batch_size,
        learning_rate=recipe.learning_rate,
        adam_weight_decay=recipe.weight_decay,
        lr_scheduler="cosine",
        lr_warmup_steps=recipe.max_train_steps // 10,
        checkpointing_steps=recipe.max_train_steps,
        checkpoints_total_limit=1,
        output_dir=run.output_dir,
    )


def continued(run: UnlearningRun, splits: Splits) -> UnlearningRun:
    """The run from its last checkpoint, where one of the same settings and samples is there; else from nothing."""
    last, now = latest(run.output_dir), {"config": dump(run), "splits": splits.hashes()}
    try:
        if last is not None:
            then = read_state(last)["identity"]
            check_identity(last, {key: then.get(key, {}) for key in now}, now)
            return replace(run, resume_from_checkpoint="latest")
    except UserError:
        pass  # it is the cache's own folder: what cannot be used is made again
    shutil.rmtree(run.output_dir, ignore_errors=True)
    return run


def check_splits_of(place: Path, splits: Splits, part: str, key: str) -> None:
    """Refuses a classifier that says it was trained on other samples than this part of the splits."""
    folder = described(place)
    if folder is None:
        return
    then, now = describe(folder, key).extra.get("splits", {}).get(part), splits.hashes()[part]
    if then not in (None, now):
        raise UserError(
            f"{key}: {folder} was trained on samples of hash {then[:12]}, these splits' {part} part is {now[:12]}; "
            "give the data, forget and split_seed that it was trained with, or another checkpoint"
        )


def check_checkpoint(place: Path, splits: Splits) -> None:
    """Refuses, in the original's place, what was trained on other samples, or is a retrained reference.

    A reference never saw what its own run forgot.
    """
    key = "model.checkpoint"
    check_splits_of(place, splits, "train", key)
    folder = described(place)
    if folder is None or not is_finished(folder):
        return
    made = read_json(folder / PROVENANCE, key)
    config = made.get("config", {})
    afresh = "begun_with" not in made or config.get("start", {}).get("name") == "scratch"
    if config.get("learn_from") == "retain" and afresh:
        raise UserError(
            f"{key}: {folder} was trained afresh on what is kept, not on all samples, as an original is; "
            "give the original, or leave the key away to have it trained"
        )
