"""How a thing was made: versions, commit, hashes; and writing that leaves a whole file or none."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from erase.errors import UserError

MODEL_FILES = (".safetensors", ".json", ".txt", ".model")
LIBRARIES = (
    *("erase", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"),
    *("open_clip_torch", "scipy", "scikit-learn", "torchmetrics", "torchvision", "timm", "pyarrow"),
)


def describe_environment() -> dict[str, Any]:
    """What ran, and the command that started it."""
    return {**describe_software(), "command": [Path(sys.argv[0]).name, *sys.argv[1:]]}


def describe_software() -> dict[str, Any]:
    """Versions of what ran, and the commit of the checkout it ran from (``None`` outside one)."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "git_commit": git_commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """HEAD of the checkout that holds this package, with ``+changes`` if files differ from it."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def hash_json(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's files.

    Of a pipeline, its index and the folders of its parts: what a run writes beside them (checkpoints, provenance)
    does not count. Of any other model, every file of weights, settings or words.
    """
    index, digest = folder / "model_index.json", hashlib.sha256()
    files = [file for file in folder.rglob("*") if file.suffix in MODEL_FILES and file.is_file()]
    if index.is_file():
        parts = json.loads(index.read_text(encoding="utf-8"))
        files = [index, *(file for file in files if file.relative_to(folder).parts[0] in parts and file != index)]
    for file in sorted(files):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def check_writable(folder: Path, key: str) -> None:
    """Refuses a folder that could not be made or written to; ``key`` is the setting that names it."""
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass  # it is to be made, or its parent is told of below
    except OSError as error:
        raise UserError(f"{key}: {folder} cannot be a folder: {error.strerror}; give another") from None
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.exists(place))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{key}: {folder} cannot be written: {there} is no folder that this user may write to")


def write_text(file: Path, text: str) -> None:
    """Writes a file atomically: the old one stays whole until the new one is on the disk."""
    temporary = file.with_name(f".{file.name}.tmp{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, value: object) -> None:
    """Writes JSON atomically, indented, keys in the order given."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(file: Path, key: str) -> dict[str, Any]:
    """A mapping from a file; ``key`` is the setting that names it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {file} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{key}: {file} is damaged: it holds no mapping")
    return content


def beside(folder: Path, ending: str) -> Path:
    """The place next to a folder that has its name and an ending; of `.` and `..`, the name of what they are."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}{ending}")


def empty_folder(folder: Path, keep: Collection[str] = ()) -> None:
    """Removes what a folder holds; not the folder itself, which may be a link or the one that the user is in."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in keep:
            entry.unlink()


def default_cache() -> Path:
    """``$ERASE_CACHE``, or ``~/.cache/erase``."""
    return Path(os.environ.get("ERASE_CACHE") or Path.home() / ".cache" / "erase")


@contextmanager
def held(lock: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process alone holds the lock while the body runs; without ``wait`` another may hold it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``folder`` when the body has finished, and vanishes if it raises."""
    temporary = folder.with_name(f".{folder.name}.tmp{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        if folder.exists():
            folder.replace(old)
        temporary.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
