"""Writes images beside the sampling: encoded, hashed and put in place by threads, then noted."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from erase.errors import AGAIN, UserError
from erase.generation.records import Written

THREADS = 4
WAITING = 64
"""Images that may wait to be written before sampling waits for them: memory stays flat where the disk is slow."""
COMPRESSION = 1
"""zlib's level: half the time of the default 6, a seventh more bytes."""


def write_bytes(file: Path, content: bytes) -> None:
    """Writes a file atomically: on the disk under another name first."""
    temporary = file.with_name(f".{file.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """``[h, w, 3]`` as a PNG; equal pixels give equal bytes with one version of Pillow."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=COMPRESSION)
    return stream.getvalue()


class ImageWriter:
    """Takes images while the body runs; at its end all are in place and noted in ``part``.

    An image is noted only when it is in place, so a process that is killed leaves none that is noted and missing.
    What goes wrong in a thread is raised by the next call, or at the end.
    """

    def __init__(self, folder: Path, part: Path) -> None:
        self.folder, self.part = folder, part
        self.written = 0
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="images")
        self._waiting: deque[Future[None]] = deque()
        self._lock = Lock()
        self._notes: IO[str] | None = None

    def __enter__(self) -> ImageWriter:
        self._notes = self.part.open("a", encoding="utf-8")
        return self

    def add(self, files: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> None:
        """Images, ``[h, w, 3]`` each, and where they go, relative to the folder."""
        for file, pixels in zip(files, images, strict=True):
            while self._waiting and (len(self._waiting) >= WAITING or self._waiting[0].done()):
                self._settle()
            self._waiting.append(self._pool.submit(self._write, file, pixels))

    def _write(self, file: str, pixels: NDArray[np.uint8]) -> None:
        content = encode_png(pixels)
        write_bytes(self.folder / file, content)
        note = Written(file, len(content), hashlib.sha256(content).hexdigest()).line()
        with self._lock:
            if self._notes is None:
                raise RuntimeError("the writer is closed")
            self._notes.write(note)
            self._notes.flush()
            self.written += 1

    def _settle(self) -> None:
        try:
            self._waiting.popleft().result()
        except OSError as error:
            remedy = f"free space or mend the disk, and {AGAIN}"
            raise UserError(f"output_dir: an image could not be written to {self.folder}: {error}; {remedy}") from None

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Waits for the threads. After an error of the body theirs are passed over; Ctrl-C drops what waits."""
        try:
            while self._waiting and kind is None:
                self._settle()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=kind is not None and not issubclass(kind, Exception))
            if self._notes is not None:
                self._notes.close()
