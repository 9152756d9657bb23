"""`erase train`, or `accelerate launch erase/train.py`: takes concepts out of a model, samples out of a classifier."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from erase.command_line import Arguments, is_first_process, parse, run_command
from erase.config import merge, read_yaml
from erase.errors import UserError
from erase.training.dry_run import dry_run
from erase.training.erasure import ErasureRun, check_run, erase_concepts
from erase.training.unlearning import plan_unlearning, unlearn
from erase.training.unlearning_settings import UnlearningRun

FLAG = "dry_run"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if chosen_task(given) == "classification":
        return run_command("train", UnlearningRun, _unlearn, given, FLAG)
    return run_command("train", ErasureRun, _erase, given, FLAG)


def chosen_task(arguments: Sequence[str]) -> object:
    """The domain that the command line or its config names; what is wrong with them is told when they are read."""
    try:
        parsed = parse([word for word in arguments if word not in ("--help", "-h")], frozenset({FLAG}))
        tree = read_yaml(parsed.config) if parsed.config else {}
        return merge(tree, [pair for pair in parsed.overrides if pair.startswith("task=")]).get("task")
    except UserError:
        return None


def _erase(run: ErasureRun, arguments: Arguments) -> None:
    if FLAG in arguments.flags:
        print(dry_run(run, check_run(run)))
        return
    counts = erase_concepts(run)
    if is_first_process():
        print(f"Erased {', '.join(target.concept for target in run.targets)}: {run.output_dir}\n{counts.describe()}")


def _unlearn(run: UnlearningRun, arguments: Arguments) -> None:
    if FLAG in arguments.flags:
        print(plan_unlearning(run))
        return
    counts = unlearn(run)
    if is_first_process():
        print(f"Trained by {run.update.name}: {run.output_dir}\n{counts.describe()}")


if __name__ == "__main__":
    sys.exit(main())
