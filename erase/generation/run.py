"""Generates a folder of images: any number of processes, stopped at any moment, the same folder in the end."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm.auto import tqdm

from erase.errors import AGAIN, UserError
from erase.generation.folder import ImageFolder, Made, list_folder, manifest_text
from erase.generation.header import add_run, check_same, default_look, make_header, read_header
from erase.generation.plan import Ask, make_asks, pending
from erase.generation.prompt_csv import canonical_csv
from erase.generation.prompts import PromptRow
from erase.generation.records import (
    DONE,
    HEADER,
    IMAGES,
    LOCK,
    MANIFEST,
    PARTS,
    PROMPTS,
    Written,
    part_file,
    part_files,
    read_written,
    remove_leftovers,
    verified,
)
from erase.generation.sampler import MakeSampler, Sampler, load_sampler
from erase.generation.settings import Generation, check_generation
from erase.generation.writer import ImageWriter
from erase.provenance import empty_folder, write_json, write_text

PATIENCE = timedelta(days=30)
"""How long a process waits for the others: their shares may take that much longer."""


class Stop(Protocol):
    """What may ask a run to end between two batches."""

    received: int
    """0 until it asks."""

    def listen(self) -> AbstractContextManager[None]:
        """Listens while the body runs."""


class Stopped(Exception):
    """The run was asked to end; what it has made is in its place."""


@dataclass(frozen=True)
class _Run:
    """What one process knows of a run."""

    generation: Generation
    rows: list[PromptRow]
    model: Path
    asks: list[Ask]
    processes: PartialState
    make_sampler: MakeSampler

    @property
    def folder(self) -> Path:
        return self.generation.output_dir

    def sampler(self) -> Sampler:
        return self.make_sampler(self.generation, self.model, self.rows, self.processes.device)


def generate_folder(
    generation: Generation, stop: Stop | None = None, make_sampler: MakeSampler = load_sampler
) -> ImageFolder:
    """Makes what is missing of the settings' images, and returns the whole folder.

    Every process calls it. An image depends on its row, on k and on the settings, never on the processes or on where
    a run was stopped; :class:`Stopped` is raised where ``stop`` asks. A folder of other settings, or one that another
    run is writing to, is refused.
    """
    rows, model = check_generation(generation)
    asks = make_asks(rows, generation.images_per_prompt, default_look(generation, model))
    processes = join_processes()
    run = _Run(generation, rows, model, asks, processes, make_sampler)
    main, folder = processes.is_main_process, generation.output_dir
    header = _header(run) if main else {}
    new = generation.overwrite or not (folder / HEADER).exists()
    sampler = run.sampler() if new else None  # before anything is written: what it refuses leaves no folder
    processes.wait_for_everyone()
    with ExitStack() as held:
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(_locked(folder, fcntl.LOCK_EX))
            _open(run, header, new)
            fcntl.flock(lock, fcntl.LOCK_SH)
        processes.wait_for_everyone()
        if not main:
            held.enter_context(_locked(folder, fcntl.LOCK_SH))
        made = _make(run, sampler, stop)
        if main:
            _finish(run)
        processes.wait_for_everyone()
    return replace(list_folder(folder, read_header(folder / HEADER), rows, verify=False), made=made)


def join_processes() -> PartialState:
    """Accelerate's processes and this one's device; as they are, where this process has trained before.

    An ``Accelerator`` would do more: it refuses a process that has trained in another precision.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def _header(run: _Run) -> dict[str, Any]:
    """The header of this run; a folder with another one is refused."""
    generation, processes = run.generation, run.processes
    header = make_header(generation, run.rows, run.model, processes.device.type, processes.num_processes)
    if (run.folder / HEADER).exists() and not generation.overwrite:
        check_same(run.folder, read_header(run.folder / HEADER), header)
    return header


@contextmanager
def _locked(folder: Path, way: int) -> Iterator[int]:
    """Holds the folder, alone or beside this run's other processes; the lock ends with the process at the latest.

    The lock is on a file that is open for writing: network file systems refuse others.
    """
    with ExitStack() as held:
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            held.callback(os.close, handle)
            fcntl.flock(handle, way | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for its end, or end it"
            raise UserError(f"output_dir: another run is writing to {folder}; {remedy}") from None
        except OSError as error:
            remedy = "give a folder on a file system with locks, such as a local disk, and move it when it is done"
            raise UserError(f"output_dir: {folder / LOCK} cannot be locked: {error}; {remedy}") from None
        yield handle


def _open(run: _Run, header: dict[str, Any], new: bool) -> None:
    """Writes the header and the set, and gathers in one file what is there and whole."""
    folder = run.folder
    if run.generation.overwrite:  # the lock stays held, and the header until the new one: a killed run is known
        empty_folder(folder, keep=(HEADER, LOCK))
    if new:
        write_json(folder / HEADER, header)
    for place in (IMAGES, PARTS):
        (folder / place).mkdir(exist_ok=True)
    remove_leftovers(folder, folder / IMAGES, folder / PARTS)
    _write_if_other(folder / PROMPTS, canonical_csv(run.rows))
    there = verified(folder, _notes(folder, folder / MANIFEST))
    wanted = {ask.file for ask in run.asks}
    done = part_file(folder, DONE)
    write_text(done, "".join(note.line() for file, note in there.items() if file in wanted))
    for part in part_files(folder):
        if part != done:
            part.unlink()
    if len(wanted & there.keys()) < len(wanted):
        (folder / MANIFEST).unlink(missing_ok=True)
        if (longer := add_run(read_header(folder / HEADER), header)) is not None:
            write_json(folder / HEADER, longer)


def _notes(folder: Path, *more: Path) -> list[Written]:
    return [note for file in (*more, *part_files(folder)) for note in read_written(file)]


def _write_if_other(file: Path, text: str) -> None:
    if not file.is_file() or file.read_bytes() != text.encode():
        write_text(file, text)


def _make(run: _Run, sampler: Sampler | None, stop: Stop | None) -> Made:
    """Samples this process's share of the batches that lack an image, and writes what they lack."""
    process, count = run.processes.process_index, run.processes.num_processes
    done = {note.file for note in read_written(part_file(run.folder, DONE))}
    missing = len(run.asks) - len(done)
    share = pending(run.asks, run.generation.batch_size, done)[process::count]
    started = time.monotonic()
    if share:
        sampler = sampler or run.sampler()
        started = time.monotonic()
        bar = tqdm(total=sum(map(len, share)), desc=_title(count), disable=process > 0)
        listening = stop.listen() if stop else nullcontext()
        with bar, ImageWriter(run.folder, part_file(run.folder, process)) as writer, listening:
            whole = _sample(share, done, sampler, writer, bar, stop)
        if not whole:
            there = len({note.file for note in _notes(run.folder)})
            raise Stopped(f"{there:,} of {len(run.asks):,} images are in {run.folder}")
    run.processes.wait_for_everyone()
    return Made(missing, time.monotonic() - started)


def _title(processes: int) -> str:
    return "images" if processes == 1 else f"images of process 1 of {processes}"


def _sample(
    share: Sequence[tuple[Ask, ...]],
    done: set[str],
    sampler: Sampler,
    writer: ImageWriter,
    bar: Any,
    stop: Stop | None,
) -> bool:
    """Whether the share was made to its end."""
    for batch in share:
        if stop and stop.received:
            return False
        images = sampler(batch)
        lacking = [place for place, ask in enumerate(batch) if ask.file not in done]
        writer.add([batch[place].file for place in lacking], [images[place] for place in lacking])
        bar.update(len(batch))
    return True


def _finish(run: _Run) -> None:
    """The manifest, once every image is there; then the notes of the processes go."""
    written = {note.file: note for note in _notes(run.folder)}
    lacking = [ask.file for ask in run.asks if ask.file not in written]
    if lacking:
        raise UserError(
            f"output_dir: {len(lacking)} of {len(run.asks)} images were not made, such as {lacking[0]}: files were "
            f"removed from {run.folder} while it was written; {AGAIN}"
        )
    _write_if_other(run.folder / MANIFEST, manifest_text(run.asks, written, read_header(run.folder / HEADER)))
    shutil.rmtree(run.folder / PARTS)
