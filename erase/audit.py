"""`erase audit`, or `accelerate launch erase/audit.py`: shows what an erasure removed, kept and damaged."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from erase.command_line import Arguments, run_command, stoppable
from erase.errors import renamed
from erase.evaluation.audit import REPORT, run_audit
from erase.evaluation.audit_settings import Audit, keys_of, output_of, plan_audit
from erase.evaluation.table import print_table
from erase.generation.dry_run import dry_run

FLAG = "dry_run"
NO_NAME = (
    "it names a training run, for `erase train`; an audit of what that made needs no config: "
    "write `erase audit --erased FOLDER --target star`"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command("audit", Audit, _audit, given, FLAG, shapes=NO_NAME)


def _audit(audit: Audit, arguments: Arguments) -> None:
    if FLAG in arguments.flags:
        for side, generation in plan_audit(audit).generations.items():
            with renamed(keys_of(audit, side)):
                print(dry_run(generation), end="\n\n" if side == "base" else "\n")
        return
    show(audit, stoppable(lambda stop: run_audit(audit, stop)))


def show(audit: Audit, results: Mapping[str, Any]) -> None:
    """The figures in the terminal, once, whatever the number of processes."""
    if results:
        print_table(results)
        print(f"Open {output_of(audit) / REPORT}")


if __name__ == "__main__":
    sys.exit(main())
