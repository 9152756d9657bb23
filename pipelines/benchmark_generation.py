"""What generating a folder of images costs: speed against plain loops, against processes, and at the size of COCO.

    python -m pipelines.benchmark_generation --setting shapes      # images a second, as ratios; some minutes on 2 cores
    python -m pipelines.benchmark_generation --setting processes   # the command with 1 and with 2 processes
    python -m pipelines.benchmark_generation --setting scale       # an audit of 30,000 prompts, stub sampler

In each round every contender makes its images, one after the other in an order that turns, and a ratio is that of two
of one round; so a machine that slows down slows all of them. Every setting is stored at once, with its table.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from erase import embedded
from erase.command_line import quieten
from erase.diffusion.pipelines import load_pipeline
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import PromptRow, vocabulary_set
from erase.generation.run import generate_folder
from erase.generation.sampler import PipelineSampler
from erase.generation.settings import Generation
from erase.provenance import write_json, write_text
from pipelines.benchmark_scale import measure_scale
from pipelines.generation_table import OURS, PLAIN, SINGLE, Figures, render
from pipelines.measure import machine

STORE = Path(__file__).parent / "results" / "benchmark_generation"
COMMAND = Path(__file__).resolve().parents[1] / "erase" / "generate.py"
STEPS, GUIDANCE = 15, 4.0


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Bench:
    """The embedded pipeline, and three ways to fill a folder with its images."""

    def __init__(self, images: int, batch: int, folder: Path) -> None:
        self.rows, self.batch, self.folder = shapes_rows(images), batch, folder
        self.pipeline = load_pipeline(embedded.WEIGHTS / "pipeline").to(device())
        write_prompt_set(self.rows, folder / "set.csv")

    def ours(self, folder: Path) -> int:
        """All of it but loading the model: checks, hashes, sampling, files, manifest."""
        generation = generation_of(self.folder / "set.csv", folder, batch_size=self.batch)
        made = generate_folder(generation, make_sampler=lambda *_: PipelineSampler(self.pipeline))
        return len(made.pictures)

    def plain(self, folder: Path) -> int:
        """A loop over batches, as in diffusers' documentation."""
        return self._loop(folder, self.rows, self.batch)

    def single(self, folder: Path) -> int:
        """As the peers' scripts do; a quarter of the images."""
        return self._loop(folder, self.rows[: max(1, len(self.rows) // 4)], 1)

    def _loop(self, folder: Path, rows: Sequence[PromptRow], size: int) -> int:
        folder.mkdir()
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            made = self.pipeline(
                [row.prompt for row in chunk],
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(row.seed) for row in chunk],
            )
            for row, image in zip(chunk, made.images, strict=True):
                image.save(folder / f"{row.case_number}_0.png")
        return len(rows)


def shapes_rows(count: int) -> list[PromptRow]:
    """The full captions, again and again."""
    copies = -(-count // 240)
    return vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=0, images=copies)[:count]


def generation_of(prompts: Path, output: Path, **other: Any) -> Generation:
    few: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    return Generation(prompts=str(prompts), output_dir=output, **few, **other)


def rate(make: Callable[[Path], int], folder: Path) -> float:
    """Images a second."""
    begin = time.perf_counter()
    count = make(folder)
    return count / (time.perf_counter() - begin)


def rounds_of(contenders: Mapping[str, Callable[[Path], int]], rounds: int, folder: Path) -> dict[str, list[float]]:
    """Each contender's images a second in every round; a round before them warms up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", flush=True)
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found = rate(contenders[name], folder / f"{number}-{names.index(name)}")
            rates[name] += [found] if number else []
    return rates


def measure_shapes(given: argparse.Namespace, folder: Path) -> Figures:
    bench = Bench(given.images, given.batch_size, folder)
    contenders = {OURS: bench.ours, PLAIN: bench.plain, SINGLE: bench.single}
    return {"batch": given.batch_size, "rates": rounds_of(contenders, given.rounds, folder)}


def command(prompts: Path, output: Path, batch: int, processes: int) -> float:
    """Seconds of sampling that `erase generate` says it took; the cores are shared out among the processes."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    found = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    found |= {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    keys = ["--prompts", prompts, "--output_dir", output, "--batch_size", batch]
    keys += ["--num_inference_steps", STEPS, "--guidance_scale", GUIDANCE]
    line = [sys.executable, *launcher, str(COMMAND), *map(str, keys)]
    done = subprocess.run(line, env=found, capture_output=True, text=True, check=False)
    said = re.search(r"made now in ([\d.]+) s", done.stdout)
    if said is None:
        raise RuntimeError(f"erase generate failed: {done.stderr[-2000:]}")
    return float(said[1])


def measure_processes(given: argparse.Namespace, folder: Path) -> Figures:
    write_prompt_set(shapes_rows(given.images), folder / "set.csv")
    rates: dict[str, list[float]] = {"1 process": [], "2 processes": []}
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", flush=True)
        for processes in (1, 2) if number % 2 else (2, 1):
            output = folder / f"{number}-{processes}"
            seconds = command(folder / "set.csv", output, given.batch_size, processes)
            rates[list(rates)[processes - 1]].append(given.images / seconds)
    return {"batch": given.batch_size, "rates": rates}


SETTINGS = {
    "shapes": (measure_shapes, 80, 5),
    "processes": (measure_processes, 240, 3),
    "scale": (measure_scale, 30_000, 1),
}
"""What measures it, how many images, how many rounds."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and writes the figures and their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS)
    parser.add_argument("--images", type=int, help="in each round; default: the setting's")
    parser.add_argument("--rounds", type=int, help="default: the setting's")
    parser.add_argument("--batch-size", type=int, default=40)
    parser.add_argument("--results", type=Path, default=STORE, help="folder of the figures and the table")
    given = parser.parse_args(arguments)
    quieten()
    if given.setting is None:
        parser.error("--setting must be given")
    measure, images, rounds = SETTINGS[given.setting]
    given.images, given.rounds = given.images or images, given.rounds or rounds
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(given, Path(folder))
    figures = {"setting": given.setting, "images": given.images, **measured, "machine": machine(device())}
    given.results.mkdir(parents=True, exist_ok=True)
    write_json(given.results / f"{given.setting}-{device().type}.json", figures)
    write_text(given.results / f"{given.setting}-{device().type}.md", render(figures))
    print(render(figures))


if __name__ == "__main__":
    main()
