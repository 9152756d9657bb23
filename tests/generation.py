"""Runs of `erase generate` on a tiny model, and a look at the folders they leave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from erase.generation.plan import Ask
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import PromptRow
from erase.generation.settings import Generation
from tests.launch import ROOT

GENERATE = ROOT / "erase" / "generate.py"
WORDS = ("a star", "a red circle", "a blue moon in dotted style", "a ring", "a green heart", "a star")


def rows_of(count: int, **same: Any) -> list[PromptRow]:
    """Rows of six prompts in turn; every third is sampled in its own way."""
    own: dict[str, Any] = {"guidance_scale": 1.0, "steps": 3}
    return [
        PromptRow(f"{i:03d}", WORDS[i % len(WORDS)], 100 + i, **{**(own if i % 3 == 2 else {}), **same})
        for i in range(count)
    ]


def write_set(folder: Path, count: int = 10, **same: Any) -> Path:
    """A set on the disk."""
    file = folder / "set.csv"
    write_prompt_set(rows_of(count, **same), file)
    return file


def settings(model: Path, prompts: Path, output: Path, **other: Any) -> Generation:
    """A run of two steps, four images at a time."""
    few: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 4.0, "batch_size": 4}
    return Generation(model=str(model), prompts=str(prompts), output_dir=output, **{**few, **other})


def arguments(generation: Generation) -> list[str]:
    """The command line of settings."""
    keys = [
        "model",
        "prompts",
        "output_dir",
        "num_inference_steps",
        "guidance_scale",
        "batch_size",
        "images_per_prompt",
    ]
    return [text for key in keys for text in (f"--{key}", str(getattr(generation, key)))]


def content(folder: Path) -> dict[str, str]:
    """Every file in a folder of images with its hash; the header's account of the machine does not count."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "generation.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Painter:
    """A sampler in no time: every pixel follows from the image's seed. It remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []

    def __call__(self, batch: Sequence[Ask]) -> NDArray[np.uint8]:
        assert len({ask.look for ask in batch}) == 1
        self.asked += batch
        size = (batch[0].look.height, batch[0].look.width, 3)
        return np.stack([np.random.default_rng(ask.seed).integers(0, 256, size, dtype=np.uint8) for ask in batch])

    def make(self, *_: object) -> Painter:
        """In place of loading a pipeline."""
        return self


def one_thread() -> None:
    """As the processes of these tests have it: rounding may depend on the number of threads."""
    torch.set_num_threads(1)
