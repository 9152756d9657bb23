"""What every command shares: `--config FILE`, `--any.key value`, `--help`, and how a mistake is shown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from erase.command_help import describe_settings
from erase.config import load
from erase.embedded import NAME
from erase.errors import AGAIN, UserError
from erase.generation.run import Stopped
from erase.training.interruption import Interrupted, Interruption

MISTAKE = 2
GRACE = 5.0
"""Seconds that the other processes leave to the first one's message."""
NO_NAME = "it names a training run, for `erase train`; give a YAML file of this command, or leave it out"
SMALLER = (
    "a smaller batch_size needs less, and gives the same pictures but for rounding; in training train_batch_size, with "
    "more gradient_accumulation_steps, or gradient_checkpointing; `erase train --dry_run` says beforehand what it takes"
)
Settings = TypeVar("Settings")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Arguments:
    """A command line, taken apart."""

    config: Path | None
    """as given; see :func:`find_config`"""
    overrides: tuple[str, ...]
    """``dotted.key=value``"""
    flags: frozenset[str]


def parse(arguments: Sequence[str], flags: frozenset[str]) -> Arguments:
    """``--key value``, ``--key=value`` or, for true, ``--key`` alone; ``flags`` are keys of the command's own."""
    config, overrides, found = None, [], set()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"{word!r}: expected --KEY VALUE")
        key, separator, value = word[2:].partition("=")
        if key in flags and not separator:
            found.add(key)
            continue
        if not separator:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        if key == "config":
            config = Path(value)
        else:
            overrides.append(f"{key}={value}")
    return Arguments(config, tuple(overrides), frozenset(found))


def find_config(given: Path | None, shapes: Path | str) -> Path | None:
    """The config's file; ``shapes`` is the one that the name `shapes` stands for, or what to do in its stead."""
    if given is None or str(given) != NAME:
        return given
    if isinstance(shapes, Path):
        return shapes
    if given.exists():
        return given
    raise UserError(f"--config {NAME}: {shapes}")


def run_command(
    name: str,
    settings: type[Settings],
    command: Callable[[Settings, Arguments], None],
    arguments: Sequence[str],
    *flags: str,
    shapes: Path | str = NO_NAME,
    see: str = "",
) -> int:
    """Reads the settings and runs the command; see :func:`guarded`, and :func:`find_config` for ``shapes``.

    ``see`` is what the help refers to beside the keys.
    """

    def work() -> None:
        if {"--help", "-h"} & set(arguments):
            also = f"; `{NAME}`: the shipped run, which erases a star from the embedded model"
            config = "a YAML file of the keys below" + (also if isinstance(shapes, Path) else "")
            print(describe_settings(name, settings, flags, config, see))
            return
        parsed = parse(arguments, frozenset(flags))
        command(load(settings, find_config(parsed.config, shapes), parsed.overrides), parsed)

    return guarded(name, work)


def guarded(name: str, work: Callable[[], None]) -> int:
    """Does the work and turns what it raises into a message and an exit code; ``name`` stands before a mistake."""
    quieten()
    try:
        work()
        return 0
    except UserError as error:
        return complain(name, error)
    except torch.OutOfMemoryError as error:
        return complain(name, UserError(f"{str(error).split('. ')[0]}; {SMALLER}"))
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print(
            "\nInterrupted; no file was left half-written. To go on, run the same command again; --overwrite "
            "would begin anew, and training that had begun goes on with --resume_from_checkpoint latest",
            file=sys.stderr,
        )
        return 130


def stoppable(work: Callable[[Interruption], Result], remedy: str = f"To go on, {AGAIN}") -> Result:
    """What the work returns; Ctrl-C and SIGTERM end it after the batch of pictures in progress."""
    interruption = Interruption()
    try:
        return work(interruption)
    except Stopped as stop:
        raise Interrupted(f"Interrupted: {stop}. {remedy}", interruption.received) from None


def quieten() -> None:
    """Turns off the libraries' own progress bars: a command shows one bar for each thing it does."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()


def is_first_process() -> bool:
    """Whether this is the process that speaks for all; the only one, if nothing was launched."""
    return os.environ.get("RANK", "0") == "0"


def complain(name: str, error: UserError) -> int:
    """Prints the mistakes, once, whatever the number of processes.

    A mistake that all processes meet is the first one's to print: the launcher then ends the others. One that
    lives on meets it alone, and says so.
    """
    where = name
    if not is_first_process():
        time.sleep(GRACE)
        where = f"{name}, process {os.environ['RANK']}"
    for problem in error.problems:
        print(f"erase {where}: {problem}", file=sys.stderr, flush=True)
    return MISTAKE
