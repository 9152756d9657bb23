"""`erase train`, or `accelerate launch erase/train.py`: takes concepts out of a model, samples out of a classifier."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from erase.command_line import Arguments, find_config, guarded, is_first_process, parse, run_command
from erase.config import dump, merge, read_yaml
from erase.embedded import DEFAULT_CONFIG
from erase.errors import UserError
from erase.publication.destination import Destination
from erase.publication.publisher import RECORD, check_before_training, publish_run
from erase.training.dry_run import dry_run
from erase.training.erasure import ErasureRun, check_run, erase_concepts
from erase.training.unlearning import plan_unlearning, unlearn
from erase.training.unlearning_settings import UnlearningRun
from erase.updates import label

FLAG = "dry_run"
TASKS = ("diffusion", "classification")
SEE = "For an image classifier: `erase train --task classification --help`."
SEE_DIFFUSION = "For a diffusion model: `erase train --help`."
NO_CLASSIFIER = "it names a run of task diffusion; give a YAML file of a classifier's, as configs/classification has"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    task = chosen_task(given)
    if task not in (None, *TASKS):
        return guarded("train", lambda: _refuse_task(task))
    if task == "classification":
        return run_command("train", UnlearningRun, _unlearn, given, FLAG, shapes=NO_CLASSIFIER, see=SEE_DIFFUSION)
    return run_command("train", ErasureRun, _erase, given, FLAG, shapes=DEFAULT_CONFIG, see=SEE)


def chosen_task(arguments: Sequence[str]) -> object:
    """The domain that the command line or its config names; what is wrong with them is told when they are read."""
    try:
        parsed = parse([word for word in arguments if word not in ("--help", "-h")], frozenset({FLAG}))
        file = find_config(parsed.config, DEFAULT_CONFIG)
        tree = read_yaml(file) if file else {}
        return merge(tree, [pair for pair in parsed.overrides if pair.startswith("task=")]).get("task")
    except UserError:
        return None


def _refuse_task(task: object) -> None:
    """Before all else, as the task says which keys there are."""
    raise UserError(f"task: found {task!r}; known: {', '.join(TASKS)}")


def _erase(run: ErasureRun, arguments: Arguments) -> None:
    if FLAG in arguments.flags:
        print(dry_run(run, check_run(run)))
        return
    if run.hub_model_id is not None:
        check_run(run)
        if is_first_process():
            check_before_training(run.output_dir, Destination(run.hub_model_id, run.hub_private_repo))
    counts = erase_concepts(run)
    if is_first_process():
        print(f"Erased {', '.join(target.concept for target in run.targets)}: {run.output_dir}\n{counts.describe()}")
        if run.hub_model_id is not None:
            _publish(run, run.hub_model_id)


def _publish(run: ErasureRun, name: str) -> None:
    """After training: whatever the Hub says, the run itself is whole."""
    try:
        published = publish_run(run.output_dir, name, private=run.hub_private_repo)
    except UserError as error:
        remedy = f"the run in {run.output_dir} is complete; publish it with: {' '.join(publish_words(run, name))}"
        raise UserError(*error.problems, remedy) from None
    print(f"Published {published.url}\nRecorded in {run.output_dir / RECORD}")


def publish_words(run: ErasureRun, name: str) -> list[str]:
    """The command that publishes the run by hand."""
    private = ["--private"] if run.hub_private_repo else []
    return ["erase", "publish", str(run.output_dir), "--repo_id", name, *private]


def _unlearn(run: UnlearningRun, arguments: Arguments) -> None:
    if FLAG in arguments.flags:
        print(plan_unlearning(run))
        return
    counts = unlearn(run)
    if is_first_process():
        print(f"Trained by {label(dump(run.update))}: {run.output_dir}\n{counts.describe()}")


if __name__ == "__main__":
    sys.exit(main())
