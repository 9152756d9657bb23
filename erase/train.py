"""`erase train`, or `accelerate launch erase/train.py`: takes concepts out of a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from erase.command_line import Arguments, is_first_process, run_command
from erase.training.dry_run import dry_run
from erase.training.erasure import ErasureRun, check_run, erase_concepts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command("train", ErasureRun, _train, sys.argv[1:] if arguments is None else arguments, "dry_run")


def _train(run: ErasureRun, arguments: Arguments) -> None:
    if "dry_run" in arguments.flags:
        print(dry_run(run, check_run(run)))
        return
    counts = erase_concepts(run)
    if not is_first_process():
        return
    print(f"Erased {', '.join(target.concept for target in run.targets)}: {run.output_dir}\n{counts.describe()}")


if __name__ == "__main__":
    sys.exit(main())
