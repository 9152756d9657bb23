"""The training benchmark's figures as a table, beside the targets."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.benchmark_table import SUM, Ratios

Figures = Mapping[str, Any]
ESD, LATENTS, UNET = "esd's recipe", "a step of sampling latents", "the UNet alone, forward and backward"
FEWER_EVALUATIONS, LESS_TIME, PEAK_SHARE, ALTERNATING = 10.0, 5.0, 0.40, 1.05
"""Targets: evaluations and time of ESD's recipe against ours for an example, at least; the share of the device's dense
bf16 rate, at least; `lur alternating` against the sum, at most."""
DENSE_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX A6000": 155e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""The makers' dense bf16 rates, in operations a second, by a part of the GPU's name; the first that fits is taken."""
KINDS = {
    "attention": "attention",
    "convolution": "conv",
    "matrix products": "mm$|addmm|bmm|linear|matmul",
    "normalization": "norm",
    "optimizer and update rule": "_foreach|_fused",
    "copies and casts": "copy|cat$|clone|fill|zero",
}
HEADER = (
    "| step | trained examples | seconds | steps/s | evaluations an example | with latents | seconds an example, "
    "with latents | peak memory, MiB |",
    "|---|---|---|---|---|---|---|---|",
)
NOTES = """A step is all of a training step. Trained examples: those of both objectives; ESD's recipe has one, to be
forgotten, and none to keep. "With latents": beside the step's own denoiser evaluations, an example's share of those
that made the run's latents, which are made once; the sampling before each step of ESD's recipe is among the step's own.
Its seconds are a mean, as its steps are of any length; all others are medians. Weights of the large model, latents and
prompts are random: what is measured is cost, not erasure.
"""


def category(operation: str) -> str:
    """The kind of an operation, from its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation)), "elementwise and others")


def typical(name: str, figures: Figures) -> float:
    """Seconds of a step."""
    return (statistics.mean if name == ESD else statistics.median)(figures["seconds"])


def per_example(name: str, case: Figures) -> tuple[float, float, float]:
    """Denoiser evaluations of one trained example: the step's own, and with latents; and its seconds with latents."""
    mine, sampling = case["contenders"][name], case["contenders"][LATENTS]
    own = statistics.mean(mine["evaluations"]) / mine["examples"]
    latents = 0.0 if name == ESD else case["latents"]["evaluations_per_example"]
    one = typical(LATENTS, sampling) / statistics.mean(sampling["evaluations"])
    return own, own + latents, typical(name, mine) / mine["examples"] + latents * one


def row(name: str, case: Figures) -> str:
    """One kind of step."""
    mine = case["contenders"][name]
    if "out_of_memory" in mine:
        return f"| {name} | out of memory | | | | | | |"
    took, memory = typical(name, mine), f"{mine['peak_bytes'] / 2**20:,.0f}"
    start = f"| {name} | {mine['examples']} | {took:.3f} | {1 / took:.2f} |"
    if name in (LATENTS, UNET):
        return f"{start} | | | {memory} |"
    own, whole, price = per_example(name, case)
    return f"{start} {own:.2f} | {whole:.2f} | {price:.4f} | {memory} |"


def judged(what: str, value: float, target: float, most: bool = False) -> str:
    """A target beside its value."""
    missed = value > target if most else value < target
    return f"| {what} | {'≤' if most else '≥'} {target:g} | {value:.3g}{' missed' if missed else ''} |"


def peak_rate(case: Figures) -> tuple[str, float]:
    """The device's dense rate as its maker says or, where that is not known here, as a large matrix product has it."""
    name = case["machine"]["gpu"] or ""
    known = [rate for part, rate in DENSE_BF16.items() if part in name]
    return (
        ("the maker's dense bf16 rate", known[0]) if known else ("a large matrix product's rate", case["matrix_rate"])
    )


def targets(case: Figures) -> Iterator[str]:
    """Every target with what was found."""
    found = {name: figures for name, figures in case["contenders"].items() if "out_of_memory" not in figures}
    if {ESD, LATENTS} <= found.keys():
        _, evaluations, price = per_example(ESD, case)
        for name in (name for name in ("lur chained", "lur alternating", SUM) if name in found):
            _, mine, took = per_example(name, case)
            yield judged(f"evaluations an example, {ESD} / {name}", evaluations / mine, FEWER_EVALUATIONS)
            yield judged(f"seconds an example, {ESD} / {name}", price / took, LESS_TIME)
            halves = f"{evaluations / mine / 2:.3g} and {price / took / 2:.3g}"
            yield f"| both, where only examples to forget count | | {halves} |"
    if UNET in found:
        what, peak = peak_rate(case)
        rate = case["pass_flops"] / typical(UNET, found[UNET])
        yield judged(f"{UNET}, share of {what} ({peak / 1e12:.3g} TFLOP/s)", rate / peak, PEAK_SHARE)
        large = f"({case['matrix_rate'] / 1e12:.3g} TFLOP/s)"
        yield f"| the same, share of a large matrix product's {large} | | {rate / case['matrix_rate']:.3g} |"
    if {"lur alternating", SUM} <= found.keys():
        ratio, noise = (Ratios.of(found[name], found[SUM]).median for name in ("lur alternating", f"{SUM} again"))
        yield judged(f"seconds, lur alternating / {SUM}, median of rounds", ratio, ALTERNATING, most=True)
        yield f"| the same of {SUM} again: its distance from 1 is noise | | {noise:.3g} |"


def origin(case: Figures) -> str:
    """Where and how it was measured."""
    machine, rounds = case["machine"], len(case["contenders"][ESD].get("seconds", ()))
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads on {machine['cores']} cores"
    share = f"{case['trainable'] / 1e6:.2f} of {case['all_parameters'] / 1e6:.2f} million parameters move"
    made = f"torch {machine['libraries']['torch']}, commit {(machine['git_commit'] or 'unknown')[:12]}"
    batch = f"batch {case['batch']} of each objective, {case['precision']}, {rounds} rounds"
    latents = (
        f"latents: {case['latents']['evaluations_per_example']:.2f} evaluations an example, as in configs/diffusion/"
    )
    return f"{where}; {made}; {share}; {batch}; {latents}{case['latents']['config']}.yaml."


def render(figures: Figures) -> str:
    """Markdown: for each case its steps, its targets, and where the time goes; and the command for a GPU."""
    lines = [f"# Cost of training: `{figures['setting']}`", "", NOTES]
    for case in figures["cases"]:
        way = "with" if case["checkpointing"] else "without"
        lines += [f"## `{case['parameters']}`, {way} gradient checkpointing", "", origin(case), "", *HEADER]
        lines += [row(name, case) for name in case["contenders"]]
        lines += ["", "| target | | found |", "|---|---|---|", *targets(case), ""]
        spent = [f"{name} {100 * share:.0f} %" for name, share in case["profile"].items()]
        lines += [f"Where the time of a step of `lur chained` goes: {', '.join(spent)}.", ""]
    if figures["setting"] != "sd15":
        lines += ["At the size of Stable Diffusion 1.5, on one GPU of 40 GB, and a part that fits on 24 GB:", ""]
        lines += ["    python -m pipelines.benchmark_training --setting sd15"]
        lines += [f"{lines[-1]} --parameters lora --checkpointing on --batch-size 4", ""]
    return "\n".join(lines)
