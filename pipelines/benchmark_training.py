"""What training costs at the size of Stable Diffusion 1.5: steps, memory, denoiser evaluations, share of peak rate.

    python -m pipelines.benchmark_training --setting sd15       # 1.5's UNet with random weights; needs a GPU of 40 GB
    python -m pipelines.benchmark_training --setting sd15 --parameters lora --checkpointing on --batch-size 4
    python -m pipelines.benchmark_training --setting shapes     # the same on the embedded model, on the CPU; minutes
    python -m pipelines.benchmark_training --setting shapes --render    # the table of the figures there

A step is all of a training step: the frozen base's targets, the rule's passes, the optimizer. Beside ours stands one
as ESD's public recipe has it: before each step the base draws a picture's first k of 50 steps, and one example is
trained on that. Rounds are interleaved, as in benchmark_updates; k runs evenly through its range over the rounds.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from erase.command_line import quieten
from erase.config import load
from erase.provenance import write_json, write_text
from erase.training.erasure import ErasureRun
from pipelines.benchmark_updates import PARAMETERS, embedded_unet, large_unet
from pipelines.measure import machine, seconds
from pipelines.training_steps import Bench, Setting
from pipelines.training_table import category, render

ROOT = Path(__file__).resolve().parents[1]
STORE = Path(__file__).parent / "results" / "benchmark_training"
WARM_UP = 2
"""Rounds before those that count: in the first LUR looks for its alpha, too."""
SETTINGS = {
    "shapes": Setting("cpu", embedded_unet, tokens=12, batch_size=8, latent_batch=16, config="shapes_star"),
    "sd15": Setting("cuda", large_unet, tokens=77, batch_size=8, latent_batch=16, config="sd15_artist"),
}


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations a second of one large matrix product, in training's precision; the best of ten."""
    side, kind = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: left @ right, device) for _ in range(10))


def shares_of_time(bench: Bench, step: Callable[[float], int]) -> dict[str, float]:
    """Where the time of a step goes, by kind of operation: the device's own time where there is one."""
    on_gpu = bench.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=kinds) as recorded:
        step(0.5)
    found: dict[str, float] = {}
    for event in recorded.key_averages():
        if event.key.startswith("aten::"):  # a kernel's time is its operation's
            took = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found[category(event.key)] = found.get(category(event.key), 0.0) + took
    return {name: took / sum(found.values()) for name, took in sorted(found.items(), key=lambda each: -each[1])}


def latents_per_example(name: str) -> float:
    """Denoiser evaluations that a config's run spends on latents, for each example that it trains on."""
    run = load(ErasureRun, ROOT / "configs" / "diffusion" / f"{name}.yaml")
    made = (run.latents.forget + run.latents.neutral + run.latents.retain) * run.latents.steps * 2
    return made / (run.max_train_steps * run.train_batch_size * run.gradient_accumulation_steps * 2)


def price(setting: Setting, parameters: str, checkpointing: bool, rounds: int) -> dict[str, Any]:
    """Every figure of one case."""
    bench = Bench(setting, PARAMETERS[parameters], checkpointing)
    contenders = bench.contenders()
    counter = FlopCounterMode(display=False)
    with counter:
        bench.pass_(0.0)
    for number in range(WARM_UP + rounds + 1):
        print(f"{parameters}: round {number + 1} of {WARM_UP + rounds + 1}", flush=True)
        share = None if number == WARM_UP + rounds else (max(0, number - WARM_UP) + 0.5) / rounds
        names = [*contenders][number % len(contenders) :] + [*contenders][: number % len(contenders)]
        for name in names:
            bench.measure(contenders[name], share)
        if number == WARM_UP - 1:
            for contender in contenders.values():
                contender.seconds.clear()
                contender.evaluations.clear()
    return {
        "parameters": parameters,
        "checkpointing": checkpointing,
        "batch": setting.batch_size,
        "precision": setting.precision,
        "trainable": sum(p.numel() for p in bench.parameters),
        "all_parameters": sum(p.numel() for p in bench.unet.parameters()),
        "latents": {"config": setting.config, "evaluations_per_example": latents_per_example(setting.config)},
        "pass_flops": counter.get_total_flops(),
        "matrix_rate": matrix_rate(bench.device),
        "profile": shares_of_time(bench, contenders["lur chained"].step),
        "machine": machine(bench.device),
        "contenders": {name: contender.figures() for name, contender in contenders.items()},
    }


def store(file: Path, setting: str, case: dict[str, Any]) -> None:
    """Adds a case to those measured before, in place of an older one of its kind."""
    kept = json.loads(file.read_text(encoding="utf-8"))["cases"] if file.is_file() else []
    cases = {(c["parameters"], c["checkpointing"], c["batch"]): c for c in [*kept, case]}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"setting": setting, "cases": [cases[key] for key in sorted(cases)]})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, then writes the table beside the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, help="default: sd15 where torch sees a GPU, else shapes")
    parser.add_argument("--parameters", nargs="+", choices=PARAMETERS, default=["full"])
    parser.add_argument("--checkpointing", choices=("off", "on"), default="off")
    parser.add_argument("--batch-size", type=int, help="of each objective; default: 8")
    parser.add_argument("--rounds", type=int, default=10, help="that many steps of each kind are timed")
    parser.add_argument("--results", type=Path, default=STORE, help="folder of the figures and the table")
    parser.add_argument("--render", action="store_true", help="only write the table")
    given = parser.parse_args(arguments)
    name = given.setting or ("sd15" if torch.cuda.is_available() else "shapes")
    setting = replace(SETTINGS[name], batch_size=given.batch_size or SETTINGS[name].batch_size)
    if setting.device == "cuda" and not torch.cuda.is_available() and not given.render:
        parser.error(f"--setting {name} needs a GPU, and torch sees none here; --setting shapes runs anywhere")
    quieten()
    if not given.render:
        kind = torch.cuda.get_device_name() if setting.device == "cuda" else setting.device
        file = given.results / f"{name}-{re.sub(r'[^a-z0-9]+', '-', kind.lower())}.json"
        for parameters in given.parameters:
            store(file, name, price(setting, parameters, given.checkpointing == "on", given.rounds))
    for file in sorted(given.results.glob(f"{name}-*.json")):
        table = render(json.loads(file.read_text(encoding="utf-8")))
        write_text(file.with_suffix(".md"), table)
        print(table)


if __name__ == "__main__":
    main()
