"""What each update rule costs: time and memory of a step, as ratios to the plain sum's.

    python -m pipelines.benchmark_updates --setting shapes          # the embedded model; some 20 minutes on 2 CPU cores
    python -m pipelines.benchmark_updates --setting sd15            # Stable Diffusion 1.5's UNet; needs a GPU
    python -m pipelines.benchmark_updates --setting sd15 --parameters lora --checkpointing on    # a part of it
    python -m pipelines.benchmark_updates --setting shapes --render # the table and the picture of the figures there

In each round every rule makes one step, one rule after the other in an order that turns, and a ratio is that of two
steps of one round; so a machine that slows down slows all of them. A step is the rule's call, without optimizer: two
losses on random latents and prompt states go in, a gradient comes out. Every case that is measured is stored at once,
in place of an older one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from erase import embedded
from erase.command_line import quieten
from erase.diffusion.batch import Batch
from erase.diffusion.conditioning import Conditioning
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses import NegativeGuidance, TeacherDistillation
from erase.diffusion.prediction import make_schedule
from erase.gradients import clear
from erase.parameters import CrossAttention, Full, LoRA, Parameters
from erase.protocols import Objective, UpdateRule, UpdateState
from erase.provenance import write_json, write_text
from erase.updates import LUR, MGDA, AlternatingSteps, CAGrad, GradientProjection, Nash, PCGrad, UPGrad, WeightedSum
from erase.updates.alpha import DisplacementAlpha
from pipelines.benchmark_table import SUM, draw, render
from pipelines.measure import machine, peak_on_cpu, peak_on_gpu, seconds

RULES: dict[str, UpdateRule] = {
    SUM: WeightedSum(),
    "weighted_sum again": WeightedSum(),
    "lur chained": LUR(mode="chained"),
    "lur alternating": LUR(mode="alternating"),
    "lur alternating, never measured": LUR(mode="alternating", measure_every=0, alpha=DisplacementAlpha()),
    "lur first_order": LUR(mode="first_order"),
    "lur exact": LUR(mode="exact"),
    **{kind().name: kind() for kind in (PCGrad, UPGrad, MGDA, CAGrad, Nash, GradientProjection, AlternatingSteps)},
}
"""The plain sum stands here twice: how far its second ratio is from 1 is how far to trust the others."""
PARAMETERS: dict[str, Parameters] = {"full": Full(), "cross_attention": CrossAttention(), "lora": LoRA()}
WARM_UP = 1
"""Rounds before those that count: in the first LUR looks for its alpha, and all is loaded."""
STORE = Path(__file__).parent / "results" / "benchmark_updates"


def embedded_unet() -> UNet2DConditionModel:
    """The embedded model's, with its weights."""
    return UNet2DConditionModel.from_pretrained(embedded.WEIGHTS / "pipeline" / "unet", use_safetensors=True)


def large_unet() -> UNet2DConditionModel:
    """Of Stable Diffusion 1.5's configuration, 860 million parameters, with random weights."""
    return UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
    )


@dataclass(frozen=True)
class Setting:
    """A model, and what a step on it looks like."""

    unet: Callable[[], UNet2DConditionModel]
    device: str
    batch_size: int
    """Of each of the two objectives."""
    tokens: int
    checkpointing: tuple[str, ...] = ("off",)

    @property
    def precision(self) -> str:
        """What a forward pass computes in; the parameters are float32."""
        return "bfloat16" if self.device == "cuda" else "float32"


SETTINGS = {
    "shapes": Setting(embedded_unet, "cpu", batch_size=16, tokens=12),
    "sd15": Setting(large_unet, "cuda", batch_size=4, tokens=77, checkpointing=("off", "on")),
}


@dataclass
class Contender:
    """A rule, and what its steps have cost so far."""

    rule: UpdateRule
    state: UpdateState = field(default_factory=UpdateState)
    seconds: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    peak_bytes: int = 0
    out_of_memory: bool = False

    def figures(self) -> dict[str, Any]:
        """For the file."""
        if self.out_of_memory:
            return {"out_of_memory": True}
        return {"seconds": self.seconds, "evaluations": self.evaluations, "peak_bytes": self.peak_bytes}


class Bench:
    """One model with some of its parameters to move, and two objectives on it."""

    def __init__(self, setting: Setting, parameters: Parameters, checkpointing: bool) -> None:
        torch.manual_seed(0)
        self.setting, self.device = setting, torch.device(setting.device)
        self.unet = setting.unet().to(self.device).train()
        self.parameters = list(parameters.select(self.unet).values())
        if checkpointing:
            self.unet.enable_gradient_checkpointing()
        half = (lambda: torch.autocast("cuda", torch.bfloat16)) if setting.precision == "bfloat16" else nullcontext
        betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        self.denoiser = Denoiser(self.unet, make_schedule(DDPMScheduler(**betas), self.device), half)
        self.retain, self.forget = self._objective(TeacherDistillation()), self._objective(NegativeGuidance())

    def _objective(self, loss: TeacherDistillation | NegativeGuidance) -> Objective:
        count, config = self.setting.batch_size, self.unet.config
        size = (count, config.in_channels, config.sample_size, config.sample_size)
        latents, noise, target = (torch.randn(size, device=self.device) for _ in range(3))
        prompts = Conditioning(torch.randn(count, self.setting.tokens, config.cross_attention_dim, device=self.device))
        times = torch.linspace(0, 999, count, device=self.device).long()
        ones = torch.ones(count, device=self.device)
        batch = Batch(latents, noise, times, prompts, None, None, prompts, ones.bool(), ones, ("",) * count, target)

        def evaluate() -> Iterator[Tensor]:
            yield loss(self.denoiser, batch).mean()

        return evaluate

    def step(self, contender: Contender) -> int:
        """One update; how many gradient evaluations it took."""
        return contender.rule(self.retain, self.forget, self.parameters, contender.state).evaluations

    def timed_step(self, contender: Contender) -> None:
        """A step whose time counts."""
        contender.seconds.append(seconds(lambda: contender.evaluations.append(self.step(contender)), self.device))

    def watched_step(self, contender: Contender) -> None:
        """A step whose memory counts, and the model's weights with it, as they do on a GPU."""
        if self.device.type == "cuda":
            contender.peak_bytes = peak_on_gpu(lambda: self.step(contender), self.device)
            return
        weights: list[Tensor] = [*self.unet.parameters(), *self.unet.buffers()]
        there = sum(tensor.numel() * tensor.element_size() for tensor in weights)
        contender.peak_bytes = there + peak_on_cpu(lambda: self.step(contender))

    def attempt(self, measure: Callable[[Contender], Any], contender: Contender) -> None:
        """Measures a contender that still stands; one that runs out of memory stands no more."""
        if contender.out_of_memory:
            return
        try:
            measure(contender)
        except torch.OutOfMemoryError:
            contender.out_of_memory = True
        clear(self.parameters)
        if contender.out_of_memory:
            torch.cuda.empty_cache()


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: drawn anew for each, so that what a rule comes after evens out."""
    return random.Random(number).sample(names, len(names))


def price(setting: Setting, parameters: str, checkpointing: str, rules: Sequence[str], rounds: int) -> dict[str, Any]:
    """Every rule's figures in one case."""
    bench = Bench(setting, PARAMETERS[parameters], checkpointing == "on")
    contenders = {name: Contender(RULES[name]) for name in rules}
    plan: list[Callable[[Contender], Any]] = [*[bench.step] * WARM_UP, *[bench.timed_step] * rounds, bench.watched_step]
    for number, measure in enumerate(plan, start=1):
        print(f"{parameters}, checkpointing {checkpointing}: round {number} of {len(plan)}", flush=True)
        for name in in_turn(list(contenders), number):
            bench.attempt(measure, contenders[name])
    return {
        "parameters": parameters,
        "checkpointing": checkpointing,
        "trainable": sum(p.numel() for p in bench.parameters),
        "all_parameters": sum(p.numel() for p in bench.unet.parameters()),
        "batch": [setting.batch_size, setting.batch_size],
        "precision": setting.precision,
        "machine": machine(bench.device),
        "rules": {name: contender.figures() for name, contender in contenders.items()},
    }


def work(given: argparse.Namespace) -> None:
    """Measures the cases asked for, and stores each as soon as it is done; each kind of GPU has a file of its own."""
    setting = SETTINGS[given.setting]
    setting = replace(setting, batch_size=given.batch_size or setting.batch_size)
    kind = torch.cuda.get_device_name() if setting.device == "cuda" else setting.device
    file = given.results / f"{given.setting}-{re.sub(r'[^a-z0-9]+', '-', kind.lower())}.json"
    rules = [name for name in RULES if name == SUM or name in given.rules]
    wanted = [way for way in setting.checkpointing if way in given.checkpointing]
    for parameters, checkpointing in itertools.product(given.parameters, wanted):
        case = price(setting, parameters, checkpointing, rules, given.rounds)
        stored = json.loads(file.read_text(encoding="utf-8"))["cases"] if file.is_file() else []
        cases = {(c["parameters"], c["checkpointing"]): c for c in [*stored, case]}
        order = itertools.product(PARAMETERS, ("off", "on"))
        content = {"setting": given.setting, "cases": [cases[key] for key in order if key in cases]}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, then writes the table and the picture beside the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--parameters", nargs="+", choices=PARAMETERS, default=list(PARAMETERS))
    parser.add_argument("--checkpointing", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="the plain sum is always there")
    parser.add_argument("--batch-size", type=int, help="of each of the two objectives; default: the setting's")
    parser.add_argument("--rounds", type=int, default=25, help="that many steps of each rule are timed")
    parser.add_argument("--results", type=Path, default=STORE, help="folder of the figures, the table and the picture")
    parser.add_argument("--render", action="store_true", help="only write the table and the picture")
    given = parser.parse_args(arguments)
    if SETTINGS[given.setting].device == "cuda" and not torch.cuda.is_available() and not given.render:
        parser.error(f"--setting {given.setting} needs a GPU, and torch sees none here; --setting shapes runs anywhere")
    quieten()
    if not given.render:
        work(given)
    for file in sorted(given.results.glob(f"{given.setting}-*.json")):
        figures = json.loads(file.read_text(encoding="utf-8"))
        write_text(file.with_suffix(".md"), render(figures))
        write_text(file.with_suffix(".svg"), draw(figures))
        print(render(figures))


if __name__ == "__main__":
    main()
