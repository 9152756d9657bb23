"""Unlearns a classifier and shows it: original, retrained reference, unlearned model, their numbers and a page.

    python pipelines/unlearn_class.py --config configs/classification/digits_random10.yaml
    python pipelines/unlearn_class.py --config configs/classification/digits_class.yaml --update.mode alternating
    python pipelines/unlearn_class.py --config my_run.yaml --shadow_models 8
    python pipelines/unlearn_class.py --config my_run.yaml --dry_run

Any key of `erase train` may follow. The original and the retrained model are trained once and kept in the cache;
results.json and report.html go beside the unlearned model. Start from nothing with `--overwrite`. With
`--shadow_models` N, 2 or more, N more models are retrained, and N more originals trained and unlearned, each from a
seed of its own: RMIA and U-LiRA then attack with them, and the NeurIPS-2023 challenge's score is taken. Both files
are there before that, and once more with the attacks; what diverges among the shadow models is left out and counted.
Called again, it keeps what is finished: models, shadow models and attacks.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from erase.classification.checkpoints import described
from erase.classification.images import Normalise
from erase.classification.masks import hash_weights
from erase.classification.models import load_classifier
from erase.classification.splits import Splits, make_splits
from erase.command_line import guarded, parse
from erase.config import differences, dump, load
from erase.errors import UserError
from erase.evaluation.audit import command_line
from erase.evaluation.metrics.loading import device
from erase.evaluation.unlearning.accuracy import accuracies
from erase.evaluation.unlearning.challenge import FEWEST, challenge_score
from erase.evaluation.unlearning.judge import Judged, judge, measure
from erase.evaluation.unlearning.outputs import PARTS, Parts, predict
from erase.evaluation.unlearning.report import ORIGINAL, RETRAINED, UNLEARNED, Results, write_report
from erase.evaluation.unlearning.shadow import rmia_beside_retraining, ulira
from erase.provenance import describe_environment, read_json, write_json
from erase.training.output import PROVENANCE
from erase.training.settings import FREE_ON_RESUME as FREE
from erase.training.unlearning import (
    as_shown,
    build_model,
    plan_unlearning,
    train_from_scratch,
    unlearn,
    with_original,
)
from erase.training.unlearning_settings import UnlearningRun, check_unlearning
from erase.training.unlearning_words import forgotten, method

RESULTS, PAGE = "results.json", "report.html"
MADE = "made"
"""Beside the attacks: the command and the software that made them, which a later call need not be."""
PLACES = ("output_dir", "overwrite")
ATTACKS = 2
"""What the attacks measure, counted up when it changes: others are not kept."""


def outputs_of(folder: Path, splits: Splits) -> Parts:
    """What a classifier that a run has written says of every part."""
    model, description = load_classifier(folder)
    return parts_of(model, description.normalise, splits)


def parts_of(model: nn.Module, normalise: Normalise, splits: Splits) -> Parts:
    """What a model says of every part, shown as it knows pictures; it is moved to the first GPU, if there is one."""
    model.to(device())
    return {name: predict(model, getattr(splits, name), normalise) for name in PARTS}


def seconds_of(folder: Path) -> float:
    """The run time that a classifier's run has noted."""
    return float(provenance_of(folder)["counts"]["seconds"])


def provenance_of(folder: Path) -> dict[str, Any]:
    """How a classifier's run was made."""
    return read_json(folder / PROVENANCE, "output_dir")


def judged_models(run: UnlearningRun, splits: Splits) -> tuple[dict[str, Judged], dict[str, Parts]]:
    """The numbers and the outputs of the original, the retrained and the unlearned model."""
    outputs, first = dict[str, Parts](), with_original(run, splits)
    if first.model.checkpoint is not None:
        outputs[ORIGINAL] = parts_of(build_model(first, splits), as_shown(first, splits).normalise, splits)
    folders = {RETRAINED: train_from_scratch(run, splits, "retain"), UNLEARNED: run.output_dir}
    outputs |= {side: outputs_of(folder, splits) for side, folder in folders.items()}
    judged = {side: judge(parts, outputs[RETRAINED]) for side, parts in outputs.items()}
    for side, folder in folders.items():
        judged[side]["RTE"] = measure("RTE", seconds_of(folder), device=provenance_of(folder).get("device"))
    return judged, outputs


def shadow_pairs(run: UnlearningRun, splits: Splits, count: int) -> list[tuple[Parts, Parts]]:
    """What shadow models say, unlearned and retrained: the same samples, other seeds. Pairs that diverge are left out.

    With the run's own pair there must be as many as the attacks need.
    """
    pairs = []
    for number in range(1, count + 1):
        folder = run.output_dir / "shadows" / str(number)
        other = replace(run, seed=run.seed + number, output_dir=folder, resume_from_checkpoint=None)
        try:
            retrained = outputs_of(train_from_scratch(other, splits, "retain"), splits)
            if run.overwrite or changes(other, splits) != []:
                unlearn(replace(other, overwrite=True))
            pairs.append((outputs_of(other.output_dir, splits), retrained))
        except UserError as error:
            if "not finite" not in str(error):
                raise
            print(f"shadow model {number} of {count} diverged and is left out: {error.problems[0]}")
    if len(pairs) < FEWEST - 1:
        rule = f"the attacks need {FEWEST - 1}; results.json and report.html are there without them"
        raise UserError(
            f"shadow_models: {count - len(pairs)} of {count} diverged, {len(pairs)} are left; {rule}; give more, or "
            "settings that diverge less often, such as a smaller learning_rate"
        )
    return pairs


def attacked(run: UnlearningRun, splits: Splits, outputs: Mapping[str, Parts], count: int) -> dict[str, Any]:
    """RMIA, U-LiRA and the challenge's score, by shadow models of both kinds."""
    pairs = [(outputs[UNLEARNED], outputs[RETRAINED]), *shadow_pairs(run, splits, count)]
    unlearned, retrained = (list(of) for of in zip(*pairs, strict=True))

    def stacked(models: list[Parts], part: str, what: str) -> Any:
        return np.stack([getattr(parts[part], what) for parts in models])

    unseen = "test_forgotten" if len(splits.test_forgotten) else "test"
    references = [stacked(retrained, part, "log_confidence") for part in ("forget", unseen)]
    target = [outputs[UNLEARNED][part].log_confidence for part in ("forget", unseen)]
    margins = [stacked(models, "forget", "margin") for models in (unlearned, retrained)]
    return {
        "RMIA": {**rmia_beside_retraining(*target, *references).as_dict(), "unseen": unseen},
        "U-LiRA": ulira(*margins).as_dict(),
        "challenge": challenged(margins, unlearned, retrained),
        "models": {"asked": count, "diverged": count + 1 - len(pairs)},
        MADE: {"version": ATTACKS, **describe_environment()},
    }


def challenged(margins: list[Any], unlearned: list[Parts], retrained: list[Parts]) -> dict[str, Any]:
    """The NeurIPS-2023 challenge's score."""

    def both(metric: str) -> tuple[float, float]:
        means = [np.mean([accuracies(parts)[metric] for parts in models]) for models in (unlearned, retrained)]
        return float(means[0]), float(means[1])

    return challenge_score(margins[0], margins[1], both("RA"), both("TA")).as_dict()


def check_shadows(run: UnlearningRun, count: int) -> None:
    """Refuses a number of shadow models that the attacks cannot do with, before anything is trained."""
    if count and count < FEWEST - 1:
        rule = f"RMIA, U-LiRA and the challenge's score take {FEWEST} of each kind, the run's own among them"
        raise UserError(f"shadow_models: found {count}; {rule}; give {FEWEST - 1} or more, or 0 for none")
    for key, given in (("model.checkpoint", run.model.checkpoint), ("mask.file", getattr(run.mask, "file", None))):
        if count and given is not None:
            rule = "it is of one original, and shadow models need each their own"
            raise UserError(f"shadow_models: found {count} beside {key}; {rule}; leave out one of the two")


def check_original(run: UnlearningRun, splits: Splits) -> None:
    """Refuses a model that has unlearned this very forget set: the page would call it the original."""
    key, folder = "model.checkpoint", described(run.model.checkpoint) if run.model.checkpoint else None
    if folder is None or not (folder / PROVENANCE).is_file():
        return
    made = read_json(folder / PROVENANCE, key)
    again = made.get("forgotten", {}).get("hash") == splits.hashes()["forget"]
    if again and made.get("config", {}).get("learn_from") != "all":
        rule = "the page compares with the original; give that, or leave the key away to have it trained"
        raise UserError(f"{key}: {folder} has unlearned this forget set already; {rule}")


def plan(run: UnlearningRun, shadow_models: int) -> str:
    """What would be made; all that can be refused beforehand is refused."""
    check_shadows(run, shadow_models)
    told = plan_unlearning(run)
    check_original(run, make_splits(run.data, run.forget, run.split_seed))
    return f"{told}\nattacks: {f'by {shadow_models} shadow models of each kind' if shadow_models else 'none'}"


def work(run: UnlearningRun, shadow_models: int, command: str) -> None:
    """Makes what is missing of the models, then the numbers and the page."""
    check_shadows(run, shadow_models)
    splits = make_splits(run.data, run.forget, run.split_seed)
    check_original(run, splits)
    earlier = made_attacks(run, splits) if is_made(run, splits) else None
    if earlier is None:
        print(unlearn(run).describe())
        earlier = {}
    judged, outputs = judged_models(run, splits)
    write = partial(write_findings, run, splits, judged, outputs, command)
    write(earlier)
    if shadow_models and earlier.get("models", {}).get("asked") != shadow_models:
        write(attacked(run, splits, outputs, shadow_models))
    print(f"{run.output_dir / RESULTS}\n{run.output_dir / PAGE}")


def write_findings(
    run: UnlearningRun,
    splits: Splits,
    judged: Mapping[str, Judged],
    outputs: Mapping[str, Parts],
    command: str,
    shadows: Mapping[str, Mapping[str, Any]],
) -> None:
    """results.json and the page, which leaves out the epsilon of each sample."""
    facts: dict[str, Any] = {
        "samples": {name: len(getattr(splits, name)) for name in ("train", *PARTS)},
        "hashes": splits.hashes(),
        "settings": {k: v for k, v in dump(run).items() if k not in PLACES},
        "environment": describe_environment(),
    }
    write_json(run.output_dir / RESULTS, {"judged": judged, "shadows": shadows, "command": command, **facts})
    shown = {
        attack: {k: v for k, v in found.items() if k != "epsilons"}
        for attack, found in shadows.items()
        if attack != MADE
    }
    model = f"{run.model.source} {run.model.architecture}"
    told = Results(forgotten(run), model, method(run), judged, command, {**facts, "shadow models": shown})
    write_report(run.output_dir / PAGE, told, outputs)


def is_made(run: UnlearningRun, splits: Splits) -> bool:
    """Whether the run's classifier is there already; that of another run in its place is refused."""
    changed = None if run.overwrite else changes(run, splits)
    if changed is None:
        check_unlearning(run)
        return False
    if changed:
        there = f"output_dir: {run.output_dir} holds a run of other settings; give another, or --overwrite"
        raise UserError(there, *changed)
    return True


def changes(run: UnlearningRun, splits: Splits) -> list[str] | None:
    """What the classifier in the run's folder was made with otherwise; ``None`` where there is none."""
    file = run.output_dir / PROVENANCE
    if not file.is_file():
        return None
    made, now = read_json(file, "output_dir"), splits.hashes()
    then = made.get("splits", {}) | {"forget": made.get("forgotten", {}).get("hash")}
    found = settings_changed(made.get("config", {}), dump(run))
    found += [f"{part} samples: other than then" for part in ("train", "forget") if then.get(part) != now[part]]
    if run.model.checkpoint is not None and not found:
        before, begun = made.get("begun_with"), hash_weights(build_model(run, splits))
        what = "holds other weights than then" if before else "not in this run, which an earlier version made"
        found += [f"model.checkpoint: {run.model.checkpoint} {what}"] if before != begun else []
    return found


def settings_changed(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings that differ, but for those that change no result."""
    return [line for line in differences(then, now) if line.split(":")[0] not in FREE]


def made_attacks(run: UnlearningRun, splits: Splits) -> dict[str, Any]:
    """The attacks of an earlier call on the same classifier, as they are made today; none, where there was none."""
    if not (run.output_dir / RESULTS).is_file():
        return {}
    found = read_json(run.output_dir / RESULTS, "output_dir")
    now = {key: value for key, value in dump(run).items() if key not in PLACES}
    same = found.get("hashes") == splits.hashes() and not settings_changed(found.get("settings", {}), now)
    attacks: dict[str, Any] = found.get("shadows", {})
    return attacks if same and attacks.get(MADE, {}).get("version") == ATTACKS else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="of `erase train`, with `task: classification`")
    parser.add_argument(
        "--shadow_models", type=int, default=0, help="more models of each kind, for attacks: 0, or 2 and more"
    )
    parser.add_argument("--dry_run", action="store_true", help="check the settings and the data, train nothing")
    given, rest = parser.parse_known_args()
    more = {"shadow_models": given.shadow_models} if given.shadow_models else {}
    command = command_line("python pipelines/unlearn_class.py", {"config": given.config, **more})
    whole = " ".join([command, *map(shlex.quote, rest)])

    def start() -> None:
        run = load(UnlearningRun, given.config, parse(rest, frozenset()).overrides)
        print(plan(run, given.shadow_models)) if given.dry_run else work(run, given.shadow_models, whole)

    return guarded("unlearn", start)


if __name__ == "__main__":
    sys.exit(main())
