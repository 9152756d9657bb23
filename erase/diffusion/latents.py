"""Latents that the frozen base generates once, in full batches, by any number of processes, and that stay on disk."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from erase.diffusion.concepts import LatentSettings
from erase.diffusion.denoiser import EvaluationCounter
from erase.errors import UserError
from erase.provenance import default_cache, hash_json
from erase.randomness import derive

Item = TypeVar("Item")
FILE, PARTS, LOCK = "latents.safetensors", "parts", "lock"
"""In a request's folder: all latents; while they are made, one file a batch; and the file that processes lock."""


@dataclass(frozen=True)
class LatentRequest:
    """All that settles what the latents are; its hash is the key they are cached under."""

    base: str
    """Hash of the base's weights and settings."""
    prompts: tuple[str, ...]
    seed: int
    scheduler: str
    steps: int
    guidance_scale: float

    def key(self) -> str:
        """SHA-256, the cache folder's name."""
        return hash_json([self.base, self.prompts, self.seed, self.scheduler, self.steps, self.guidance_scale])


def spread(items: Sequence[Item], count: int, seed: int) -> tuple[Item, ...]:
    """``count`` items: every one in a shuffled order, again and again; none is left out before one repeats."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(derive(seed, "spread")))
    return tuple(items[int(order[index % len(items)])] for index in range(count))


@dataclass(frozen=True)
class Latents:
    """Latents, and what they cost whoever made them."""

    tensor: Tensor
    """``[n, 4, h, w]`` on the CPU, one for each of the request's prompts; cached ones are mapped from their file, so
    that only what is looked at takes memory."""
    evaluations: int
    """Denoiser evaluations, one an example; a cached file says how many its makers took."""


def cached_latents(pipeline: Any, request: LatentRequest, settings: LatentSettings, quiet: bool = False) -> Latents:
    """The request's latents, from the cache or made now (and cached).

    Processes that call this together make one batch each at a time, wherever they run, as long as they see the same
    folder; a killed one is replaced by the others, or by the next run, which goes on with the batches that are there.
    """
    folder = (settings.cache_dir or default_cache()) / f"latents-{request.key()[:32]}"
    try:
        found = _read(folder / FILE, request.key())
        if found is None:
            _complete(pipeline, request, settings.batch_size, folder, quiet)
            found = _read(folder / FILE, request.key())
    except (OSError, SafetensorError) as error:
        found = _read(folder / FILE, request.key())
        if found is None:
            raise UserError(f"latents.cache_dir: {folder} could not be written: {error}") from None
    if found is None:
        raise UserError(f"latents.cache_dir: {folder / FILE} cannot be read back; is another program writing there?")
    return found


def make_latents(pipeline: Any, request: LatentRequest, batch_size: int, quiet: bool = False) -> Tensor:
    """The same without a disk, all in memory."""
    bar = tqdm(_spans(request, batch_size), desc="latents of the base", disable=quiet)
    return torch.cat([_sample(pipeline, request, span) for span in bar])


def _spans(request: LatentRequest, batch_size: int) -> list[range]:
    """The places of each batch's prompts."""
    count = len(request.prompts)
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


@torch.no_grad()
def _sample(pipeline: Any, request: LatentRequest, span: range) -> Tensor:
    """One batch, by the pipeline itself; each latent has a generator of its own, so batches do not matter."""
    seeds = [derive(request.seed, "latent", place) for place in span]
    return (
        pipeline(
            list(request.prompts[span.start : span.stop]),
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
        )
        .images.float()
        .cpu()
    )


def _read(file: Path, key: str) -> Latents | None:
    """A file's latents; ``None`` where there is none, or one that is damaged or of another request."""
    try:
        with safe_open(file, "pt") as cached:
            about = cached.metadata()
            return Latents(cached.get_tensor("latents"), int(about["evaluations"])) if about["key"] == key else None
    except (OSError, RuntimeError, SafetensorError, LookupError, TypeError, ValueError):
        return None  # torch opens the file again by its name: a RuntimeError, if another process has removed it


def _complete(pipeline: Any, request: LatentRequest, batch_size: int, folder: Path, quiet: bool) -> None:
    """Makes what is missing, and joins it in one file.

    A batch is made by whoever has locked it. The first round leaves alone what others are making; the second waits
    for that, and makes it if its maker is gone.
    """
    parts, spans = folder / f"{PARTS}-{batch_size}", _spans(request, batch_size)
    files = [parts / f"{batch_size}-{span.start:06d}.safetensors" for span in spans]
    parts.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+b") as lock, tqdm(total=len(spans), desc="batches of latents", disable=quiet) as bar:

        def done(place: int, wait: bool) -> bool:
            with _locked(lock, place, wait) as mine:
                # the part first: parts vanish only once FILE is there
                if mine and not any(_read(file, request.key()) for file in (files[place], folder / FILE)):
                    _make_part(pipeline, request, spans[place], files[place])
            bar.update(int(mine))
            return mine

        left = [place for place in range(len(spans)) if not done(place, wait=False)]
        for place in left:
            done(place, wait=True)
        with _locked(lock, len(spans), wait=True):
            if _read(folder / FILE, request.key()) is None:
                _join(files, folder / FILE, request.key())
            shutil.rmtree(parts, ignore_errors=True)


@contextmanager
def _locked(lock: IO[bytes], place: int, wait: bool) -> Iterator[bool]:
    """Whether this process holds a place of the lock while the body runs; without ``wait`` another may hold it.

    The system takes the lock from a process that ends, however it ends; network file systems know these locks too.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
    except (BlockingIOError, PermissionError):  # which of the two depends on the system
        yield False
        return
    try:
        yield True
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, place)


def _make_part(pipeline: Any, request: LatentRequest, span: range, file: Path) -> None:
    """One batch and its file."""
    counter = EvaluationCounter()
    with counter.watch(pipeline.unet):
        latents = _sample(pipeline, request, span)
    with _whole(file) as temporary:
        save_file({"latents": latents}, temporary, {"key": request.key(), "evaluations": str(counter.count)})


def _join(files: Sequence[Path], whole: Path, key: str) -> None:
    """Copies the batches behind each other into one safetensors file, with one of them in memory at a time."""
    parts = [part for file in files if (part := _read(file, key)) is not None]
    if len(parts) < len(files):
        raise UserError(f"latents.cache_dir: {len(files) - len(parts)} files of {whole.parent} vanished; run it again")
    shape = [sum(len(part.tensor) for part in parts), *parts[0].tensor.shape[1:]]
    size = sum(part.tensor.nbytes for part in parts)
    header = {
        "__metadata__": {"key": key, "evaluations": str(sum(part.evaluations for part in parts))},
        "latents": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with _whole(whole) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            stream.write(part.tensor.numpy().data)


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """A temporary name for what becomes ``file`` when the body has finished, and vanishes if it raises."""
    temporary = file.with_name(f".{file.name}.tmp{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
