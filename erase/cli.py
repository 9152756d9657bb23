"""The `erase` command: one name for each job."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "erase a concept from the embedded model and look at the page: offline, in minutes",
    "train": "erase concepts from a Stable Diffusion model, or samples from an image classifier",
    "audit": "show what an erasure removed, kept and damaged: pictures, scores with intervals, a page",
    "publish": "put an erased Stable Diffusion model on the Hub, with a card that shows its audit and how it was made",
    "generate": "make images of a set of prompts, each from a seed of its own",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands the rest of the command line to ``erase.<command>.main``; imports nothing else."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    if given[0] == "--version":
        print(importlib.import_module("erase").__version__)
        return 0
    if given[0] not in COMMANDS:
        print(f"erase: {given[0]!r} is no command; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"erase.{given[0]}").main(given[1:])


def usage() -> str:
    """The commands and what each does."""
    lines = [f"  erase {name:8} {meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join(
        ["usage: erase COMMAND [--KEY VALUE ...]", "", *lines, "", "`erase COMMAND --help` lists every key."]
    )


if __name__ == "__main__":
    sys.exit(main())
