"""The study of unlearning: searches, runs and references, each made once and stored at once.

Tuning uses seeds of its own, and the validation part in the test part's place: the smallest average gap to retraining
there chooses. Then every method runs with what was chosen, on seeds that no tuning saw.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from erase.classification.splits import Data, Forget, Splits, make_splits
from erase.config import build, dump
from erase.errors import UserError
from erase.evaluation.unlearning.judge import judge, values
from erase.evaluation.unlearning.outputs import Parts
from erase.evaluation.unlearning.study import AGAIN, NOTHING, REFERENCES, RETRAIN, Row
from erase.provenance import describe_software, held, write_json
from erase.training.unlearning import train_from_scratch, unlearn
from erase.training.unlearning_settings import UnlearningRun
from pipelines.search import choose
from pipelines.unlearn_class import outputs_of, seconds_of
from pipelines.unlearning_methods import METHODS, SETTINGS, Overrides, make_run

TUNING_SEEDS = (100, 101, 102)
"""A search on the first, the best of which run on the others, too."""
ANOTHER = 1000
"""What the second retraining of a seed adds to it."""
JUDGED = 4000
"""Retained samples that RA and the attacks see at most; the digits have fewer."""
PLACES = ("output_dir", "overwrite", "logging_dir")


@dataclass(frozen=True)
class Study:
    """Where results are kept, and models while they are judged."""

    store: Path
    scratch: Path
    seen: dict[Path, Parts] = field(default_factory=dict)
    """The outputs of the retrained model that was judged by last."""
    choices: dict[tuple[str, str], Overrides] = field(default_factory=dict)
    """What tuning chose, once it is known: a choice reads every try."""

    @staticmethod
    def methods(setting: str) -> list[str]:
        """Those that are made in a setting."""
        return [name for name, method in METHODS.items() if setting in method.settings]

    def make_rows(self, setting: str, seed: int) -> None:
        """Every method as tuned. What others are making is left to them, and waited for at the end."""
        given = {name: self.chosen(setting, name) for name in self.methods(setting)}
        left = [name for name in given if self.row(setting, name, given[name], seed, wait=False) is None]
        for name in left:
            self.row(setting, name, given[name], seed)

    def tune(self, setting: str) -> None:
        """Searches for every method, each by one process."""
        left = [name for name in self.methods(setting) if not self.search(setting, name, wait=False)]
        for name in left:
            self.search(setting, name)

    def search(self, setting: str, name: str, wait: bool = True) -> bool:
        """Makes the tries of a method, unless another process does."""

        def gap(overrides: Overrides, seed: int) -> float:
            self.row(setting, name, overrides, seed, tuning=True)
            return self.gap(setting, name, overrides, seed)

        with claimed(self.place(setting, name, (), TUNING_SEEDS[0], tuning=True), wait) as mine:
            if mine:
                tuned(name, gap)
        return mine

    def chosen(self, setting: str, name: str) -> Overrides:
        """The overrides of the smallest average gap on the tuning seeds; every try must be stored."""
        if (setting, name) not in self.choices:
            self.choices[setting, name] = tuned(name, partial(self.gap, setting, name))
        return self.choices[setting, name]

    def tuning_gap(self, setting: str, name: str) -> float:
        """What the choice was by: the mean over the tuning seeds."""
        overrides = self.chosen(setting, name)
        return statistics.fmean(self.gap(setting, name, overrides, seed) for seed in TUNING_SEEDS)

    def gap(self, setting: str, name: str, overrides: Overrides, seed: int) -> float:
        """The average gap of a try; of one that diverged, infinite."""
        place = self.place(setting, name, overrides, seed, tuning=True)
        found = self.stored(place, self.run(setting, name, overrides, seed, place))
        if found is None:
            raise UserError(f"{place}: is not there, or of other settings; run the tuning of {setting} again")
        return float(found["values"].get("Avg_gap", math.inf))

    def run(self, setting: str, name: str, overrides: Overrides, seed: int, place: Path) -> UnlearningRun:
        """The settings of a run, with a folder of its own for the model."""
        return make_run(SETTINGS[setting], METHODS[name], overrides, seed, self.scratch / setting / place.stem)

    def row(
        self, setting: str, name: str, overrides: Overrides, seed: int, tuning: bool = False, wait: bool = True
    ) -> Row | None:
        """One run, judged; made now if it is not stored. Without ``wait``, ``None`` while another process makes it."""
        place = self.place(setting, name, overrides, seed, tuning)
        run = self.run(setting, name, overrides, seed, place)
        with claimed(place, wait) as mine:
            if not mine:
                return None
            found = self.stored(place, run)
            if found is None:
                found = self.make(setting, run, tuning)
                write_json(place, {"setting": setting, "method": name, "seed": seed, **found})
        return Row(name, SETTINGS[setting].title, seed, found["values"])

    def rows(self, setting: str) -> list[Row]:
        """What is stored of a setting: run as the stored tuning chooses, by the configurations as they are today.

        A run of other settings is not there; nor is any before every method is tuned.
        """
        try:
            given = {name: self.chosen(setting, name) for name in self.methods(setting)}
        except UserError:
            return []
        title, found = SETTINGS[setting].title, []
        for file in sorted((self.store / "runs" / setting).glob("references-*.json")):
            seed = int(file.stem.rpartition("-")[2])
            references = self.stored(file, self.reference_run(setting, seed)) or {}
            found += [Row(name, title, seed, references[name]) for name in REFERENCES if name in references]
            for name, overrides in given.items():
                place = self.place(setting, name, overrides, seed, tuning=False)
                if stored := self.stored(place, self.run(setting, name, overrides, seed, place)):
                    found.append(Row(name, title, seed, stored["values"]))
        return found

    def place(self, setting: str, name: str, overrides: Overrides, seed: int, tuning: bool) -> Path:
        """The file of a run's result."""
        label = "_".join([name.replace(" ", "-").replace(",", ""), *(o.split("=")[1] for o in overrides if tuning)])
        return self.store / ("tune" if tuning else "runs") / setting / f"{label}-{seed}.json"

    def stored(self, place: Path, run: UnlearningRun) -> dict[str, Any] | None:
        """A result of the same settings and samples."""
        if not place.is_file():
            return None
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        same = is_of(found["config"], run) and found["splits"] == forgotten(run.data, run.forget, run.split_seed)
        return found if same else None

    def make(self, setting: str, run: UnlearningRun, tuning: bool) -> dict[str, Any]:
        """Unlearns, and judges against retraining; a run that diverges has no values."""
        splits = make_splits(run.data, run.forget, run.split_seed)
        reference = self.reference(run, splits)
        made: dict[str, Any] = {"config": settings_of(run), "splits": splits.hashes()["forget"]}
        try:
            counts = unlearn(run)
            found = outputs_of(run.output_dir, to_judge(splits))
            judged = values(judge(for_tuning(found, tuning), for_tuning(reference, tuning), ()))
            judged["RTE"] = counts.seconds
        except UserError as error:
            if "not finite" not in str(error):
                raise
            judged, made["diverged"] = {}, str(error)
        shutil.rmtree(run.output_dir, ignore_errors=True)
        return {"values": judged, **made, "environment": describe_software()}

    def reference(self, run: UnlearningRun, splits: Splits) -> Parts:
        """What retraining says of every part; the last one stays in memory, for the next method."""
        folder = self.retrained(run, splits)
        if folder not in self.seen:
            self.seen.clear()
            self.seen[folder] = outputs_of(folder, to_judge(splits))
        return self.seen[folder]

    def retrained(self, run: UnlearningRun, splits: Splits) -> Path:
        with claimed(self.scratch / f"reference-{run.data.name}-{run.forget.name}-{run.seed}"):
            train_from_scratch(run, splits, "all")
            return train_from_scratch(run, splits, "retain")

    def references(self, setting: str, seed: int) -> None:
        """Retraining, retraining from other weights, and doing nothing."""
        place = self.store / "runs" / setting / f"references-{seed}.json"
        run = self.reference_run(setting, seed)
        with claimed(place):
            found = self.stored(place, run)
            if found is None or AGAIN not in found:
                found = self.judged_references(run)
                write_json(place, found)

    def reference_run(self, setting: str, seed: int) -> UnlearningRun:
        """Settings of a run of which only what all methods share matters."""
        return make_run(SETTINGS[setting], METHODS["finetune"], (), seed, self.scratch / "none")

    def judged_references(self, run: UnlearningRun) -> dict[str, Any]:
        """All judged against retraining, which is 0 from itself."""
        splits = make_splits(run.data, run.forget, run.split_seed)
        reference, other = self.reference(run, splits), replace(run, seed=run.seed + ANOTHER)
        folders = {AGAIN: train_from_scratch(other, splits, "retain"), NOTHING: train_from_scratch(run, splits, "all")}
        outputs = {RETRAIN: reference} | {
            name: outputs_of(folder, to_judge(splits)) for name, folder in folders.items()
        }
        found = {name: values(judge(parts, reference, ())) for name, parts in outputs.items()}
        found[RETRAIN]["RTE"], found[AGAIN]["RTE"] = map(seconds_of, (self.retrained(run, splits), folders[AGAIN]))
        found[NOTHING]["RTE"] = 0.0
        made = {"config": settings_of(run), "splits": splits.hashes()["forget"]}
        return {**found, **made, "environment": describe_software()}


def tuned(name: str, gap: Callable[[Overrides, int], float]) -> Overrides:
    """What is least on the tuning seeds."""
    first, *others = TUNING_SEEDS
    return choose(METHODS[name].search, lambda o: gap(o, first), lambda o: [gap(o, seed) for seed in others])


@lru_cache
def forgotten(data: Data, forget: Forget, seed: int) -> str:
    """The hash of what is forgotten."""
    return make_splits(data, forget, seed).hashes()["forget"]


def settings_of(run: UnlearningRun) -> dict[str, Any]:
    """The run's settings but for its places and, where it takes no step, for what would make one."""
    void = (*PLACES, "update") if run.max_train_steps == 0 else PLACES
    return {key: value for key, value in dump(run).items() if key not in void}


def is_of(config: dict[str, Any], run: UnlearningRun) -> bool:
    """Whether settings, read by today's classes, are the run's; one that has come since is at its default."""
    wanted = settings_of(run)
    if config == wanted:  # which is nearly always so, and spares building it
        return True
    try:
        return settings_of(build(UnlearningRun, {**config, "output_dir": str(run.output_dir)})) == wanted
    except UserError:
        return False


def to_judge(splits: Splits) -> Splits:
    """With no more than ``JUDGED`` of what is retained, which lies in random order: it takes longest to look at."""
    return replace(splits, retain=splits.retain.take(torch.arange(min(JUDGED, len(splits.retain)))))


def for_tuning(parts: Parts, tuning: bool) -> Parts:
    """While tuning, the validation part stands for the test part, which chooses nothing."""
    return {**parts, "test": parts["validation"]} if tuning else parts


def claimed(place: Path, wait: bool = True) -> AbstractContextManager[bool]:
    """Holds a result against other processes that would make it too; without ``wait`` another may hold it."""
    return held(place.with_name(f".{place.name}.lock"), wait)
