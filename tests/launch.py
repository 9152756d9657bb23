"""Runs of `erase train`, in this process and in others, and a look at what they leave."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from erase.train import main
from erase.training.step_log import StepLog

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "erase" / "train.py"
SGD = {"optimizer": "sgd", "learning_rate": "0.3"}
"""Lines of a config. SGD moves along the gradient; Adam would turn rounding of a tiny gradient into a whole step."""
PROMPTS = ["a red star in flat style", "a blue circle"]


def train(config: Path, *arguments: str) -> int:
    """`erase train` in this process, on one thread; its exit code."""
    torch.set_num_threads(1)
    return main(["--config", str(config), *arguments])


def at_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Does something as soon as a run of this process has logged a step."""
    write = StepLog.write

    def write_and_act(log: StepLog, line: dict[str, Any]) -> None:
        write(log, line)
        if line["step"] == step:
            act()

    patch.setattr(StepLog, "write", write_and_act)


def train_and_stop(config: Path, step: int, *arguments: str, number: int = signal.SIGTERM) -> int:
    """`erase train` in this process, which gets a real signal after a step."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, lambda: signal.raise_signal(number))
        return train(config, *arguments)


def environment() -> dict[str, str]:
    """One thread a process and no GPU; the checkout is importable even where it is not installed."""
    found = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "HF_HUB_OFFLINE": "1"}
    try:
        distribution("erase")
    except PackageNotFoundError:
        found["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return found


def run(folder: Path, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`python COMMAND` in a folder, to its end."""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout
    )


@contextmanager
def started(folder: Path, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python COMMAND` in a folder while the body runs; what it says goes to a file."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment(), stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(process: subprocess.Popen[bytes], reached: Callable[[], bool], seconds: float = 180) -> None:
    """Waits for a process to get somewhere; fails if it ends before."""
    end = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < end, f"nothing in {seconds} s"
        time.sleep(0.01)


def unet(folder: Path) -> dict[str, Tensor]:
    """The UNet's weights in a pipeline's folder."""
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def largest_difference(left: Path, right: Path) -> float:
    """Of any entry of the UNets in two folders."""
    a, b = unet(left), unet(right)
    return max((a[name] - b[name]).abs().max().item() for name in a)


def rounding(base: Path, erased: Path, steps: int = 4) -> float:
    """How far two SGD runs may end apart that add the same float32 terms in another order.

    A weight of size 1 is rounded by 2^-24 at each step. A mean over 4 examples is rounded by some 1e-6 of the
    gradient, and LUR's controller divides that by the correction's share, 0.1: 1e-5 a step of the way the weights went.
    """
    return steps * (2**-24 + 1e-5 * largest_difference(base, erased))


RELATIVE = 1e-3
"""Of losses and norms in the log of two such runs: 4 steps of 1e-5, and as much again for what follows from them."""
STEERED = 1e-2
"""Of alpha and the correction: the first measure is a difference of gradients that agree in three digits and more, and
alpha goes where it points."""
TURNED = 3e-4
"""Of a cosine, absolute: two gradients that are each off by some 1e-5 of the whole's length, which is some 1e-4 of a
small block's."""
CORRECTED = 1e-5
"""Of a correction, absolute: two gradients that are each off by some 1e-6 of their sum."""


def near(line: dict[str, Any]) -> dict[str, Any]:
    """What the same step of the other run may log; what this one did not measure is left out."""
    found = {}
    for key, value in line.items():
        if value is None:
            continue
        slack = 1e-9
        if key.startswith("cosine"):
            slack = TURNED
        elif key.startswith("inner") and (cosine := line[key.replace("inner", "cosine")]):
            slack = TURNED * abs(value / cosine)  # of the product of both norms
        elif key.startswith("correction"):
            slack = CORRECTED
        steered = key == "alpha" or key.startswith("correction")
        found[key] = pytest.approx(value, rel=STEERED if steered else RELATIVE, abs=slack)
    return found


def pictures(pipeline: Any) -> Tensor:
    """``[2, 16, 16, 3]`` from 0 to 1: what a pipeline draws."""
    pipeline.set_progress_bar_config(disable=True)
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    drawn = pipeline(PROMPTS, num_inference_steps=3, guidance_scale=4.0, generator=generator, output_type="np").images
    return torch.from_numpy(drawn)


def listing(*folders: Path) -> dict[str, str]:
    """Everything in some folders: each folder's and each file's path, with the file's hash."""
    items = [item for folder in folders for item in folder.rglob("*")]
    return {str(i): hashlib.sha256(i.read_bytes()).hexdigest() if i.is_file() else "folder" for i in items}
