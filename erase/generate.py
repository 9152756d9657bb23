"""`erase generate`, or `accelerate launch erase/generate.py`: makes images of a set of prompts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from erase.command_line import Arguments, is_first_process, run_command, stoppable
from erase.generation.dry_run import dry_run
from erase.generation.run import generate_folder
from erase.generation.settings import Generation

FLAG = "dry_run"
NO_NAME = (
    "it names a training run, for `erase train`; pictures of the embedded model need no config: "
    "write `erase generate --prompts shapes --output_dir FOLDER`"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command("generate", Generation, _generate, given, FLAG, shapes=NO_NAME)


def _generate(generation: Generation, arguments: Arguments) -> None:
    if FLAG in arguments.flags:
        print(dry_run(generation))
        return
    folder = stoppable(lambda stop: generate_folder(generation, stop))
    if is_first_process():
        made, total = folder.made, len(folder.pictures)
        rate = f" in {made.seconds:.1f} s, {made.images / made.seconds:.2f} a second" if made.images else ""
        print(f"{folder.folder}: {total:,} images, {made.images:,} of them made now{rate}")


if __name__ == "__main__":
    sys.exit(main())
