"""The kinds of step that the training benchmark compares: ours, ESD's recipe, and what both are made of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from erase.diffusion.batch import Examples
from erase.diffusion.conditioning import Conditioning, together
from erase.diffusion.denoiser import Denoiser
from erase.diffusion.losses import NegativeGuidance, TeacherDistillation
from erase.diffusion.task import ErasureTask
from erase.gradients import clear
from erase.parameters import LoRA, Parameters
from erase.protocols import Shard, UpdateRule, UpdateState
from erase.updates import LUR, WeightedSum
from pipelines.benchmark_updates import RULES as EVERY_RULE
from pipelines.measure import peak_on_cpu, peak_on_gpu, seconds
from pipelines.training_table import ESD, LATENTS, UNET

RULES: dict[str, UpdateRule] = {
    name: rule for name, rule in EVERY_RULE.items() if isinstance(rule, WeightedSum | LUR) and "never" not in name
}
"""The plain sum, twice, and each mode of LUR."""
ESD_STEPS, ESD_GUIDANCE, ESD_ETA = 50, 3.0, 2.0
"""Of the sampler, of which a part runs before each step; its guidance; the loss's. Batch 1, Adam."""
TEXTS = ("the concept", "what stays", "no concept", "")


@dataclass(frozen=True)
class Setting:
    """A model, and what a step on it looks like."""

    device: str
    unet: Callable[[], UNet2DConditionModel]
    tokens: int
    batch_size: int
    """Of each of the two objectives, and of the UNet's pass alone."""
    latent_batch: int
    config: str
    """The run over whose training examples the latents' cost is spread."""

    @property
    def precision(self) -> str:
        """What training's forward passes compute in; latents are made in float32."""
        return "bfloat16" if self.device == "cuda" else "float32"


@dataclass
class Contender:
    """A kind of step: given the round's share of all rounds, from 0 to 1, it says how many evaluations it took."""

    step: Callable[[float], int]
    examples: int
    """That one step trains on, or draws."""
    evaluations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    out_of_memory: bool = False
    peak_bytes: int = 0

    def figures(self) -> dict[str, Any]:
        """As the file has them."""
        kept = ("examples", "seconds", "evaluations", "peak_bytes")
        return {"out_of_memory": True} if self.out_of_memory else {name: getattr(self, name) for name in kept}


class Bench:
    """An erasure on random latents and prompts; every kind of step moves the same parameters a very little."""

    def __init__(self, setting: Setting, parameters: Parameters, checkpointing: bool) -> None:
        torch.manual_seed(0)
        self.setting, self.device, self.number = setting, torch.device(setting.device), 0
        self.unet = setting.unet().to(self.device).requires_grad_(False)
        config = self.unet.config
        self.size = (config.in_channels, config.sample_size, config.sample_size)
        self.sampler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        half = (lambda: torch.autocast("cuda", torch.bfloat16)) if setting.precision == "bfloat16" else nullcontext
        width = (1, setting.tokens, config.cross_attention_dim)
        self.told = {text: Conditioning(torch.randn(width, device=self.device)) for text in TEXTS}
        shown, kept, neutral, _ = ((text,) * setting.batch_size for text in TEXTS)
        latents = torch.randn(setting.batch_size, *self.size, device=self.device)
        self.task = ErasureTask(
            SimpleNamespace(unet=self.unet, scheduler=self.sampler),
            parameters,
            (NegativeGuidance(), TeacherDistillation()),
            (Examples(latents, shown, concepts=shown, baselines=neutral), Examples(latents, kept)),
            self.told,
            gradient_checkpointing=checkpointing,
            autocast=half,
        )
        if self.task._reference is None:
            raise RuntimeError("both losses compare with the frozen base")
        self.base = self.task._reference
        self.parameters = list(self.task.trainable.values())
        self.copies = 1 if isinstance(parameters, LoRA) else 2
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-7)

    def contenders(self) -> dict[str, Contender]:
        """Every kind of step, by name."""
        batch = self.setting.batch_size
        ours = {name: Contender(self.rule_step(rule), 2 * batch) for name, rule in RULES.items()}
        others = {ESD: (self.esd_step, 1), LATENTS: (self.latent_step, self.setting.latent_batch)}
        return ours | {name: Contender(*each) for name, each in others.items()} | {UNET: Contender(self.pass_, batch)}

    def rule_step(self, rule: UpdateRule) -> Callable[[float], int]:
        """A training step of the toolkit."""
        state = UpdateState()

        def step(_: float) -> int:
            before, self.number = self.task.evaluations, self.number + 1
            objectives = self.task.objectives(self.number, Shard(batch_size=self.setting.batch_size))
            rule(*objectives, self.parameters, state)
            self.move()
            return self.task.evaluations - before

        return step

    def move(self) -> None:
        """The optimizer's part."""
        self.optimizer.step()
        clear(self.parameters)

    def esd_step(self, share: float) -> int:
        """ESD's: k guided steps of the base, three predictions of it, and one example for the student."""
        self.sampler.set_timesteps(ESD_STEPS, device=self.device)
        place = min(ESD_STEPS - 1, int(share * ESD_STEPS))
        concept, empty = self.told[TEXTS[0]], self.told[""]
        with self.base() as unet, torch.no_grad():
            base, noisy = self.task.denoiser.of(unet), torch.randn(1, *self.size, device=self.device)
            for time in self.sampler.timesteps[:place]:
                noisy = self.sampler.step(self.guided(base, noisy, time), time, noisy).prev_sample
            time = self.sampler.timesteps[place].reshape(1)
            three = [base(noisy, time, prompt) for prompt in (concept, concept, empty)]
        target = three[0] - ESD_ETA * (three[1] - three[2])
        (self.task.denoiser(noisy, time, concept) - target).pow(2).mean().backward()
        self.move()
        return 2 * place + 3 + 1

    def guided(self, base: Denoiser, noisy: Tensor, time: Tensor) -> Tensor:
        """Classifier-free guidance."""
        count = len(noisy)
        prompts = together([self.told[""].expand(count), self.told[TEXTS[0]].expand(count)])
        plain, shown = base(noisy.repeat(2, 1, 1, 1), time.repeat(2 * count), prompts).chunk(2)
        return plain + ESD_GUIDANCE * (shown - plain)

    @torch.no_grad()
    def latent_step(self, _: float) -> int:
        """One of the sampling steps that make latents, of a whole batch of them."""
        count, time = self.setting.latent_batch, torch.tensor(500, device=self.device)
        full = replace(self.task.denoiser, autocast=nullcontext)
        with self.base() as unet:
            self.guided(full.of(unet), torch.randn(count, *self.size, device=self.device), time)
        return 2 * count

    def pass_(self, _: float) -> int:
        """The UNet's forward and backward alone."""
        count = self.setting.batch_size
        noisy, times = torch.randn(count, *self.size, device=self.device), torch.arange(count, device=self.device)
        self.task.denoiser(noisy, times, self.told[TEXTS[0]].expand(count)).pow(2).mean().backward()
        clear(self.parameters)
        return count

    def resident(self) -> int:
        """Bytes that lie there before a step: the weights, the base's copy, the optimizer's moments."""
        weights = sum(p.nbytes for p in self.unet.parameters())
        return self.copies * weights + 2 * sum(p.nbytes for p in self.parameters)

    def measure(self, contender: Contender, share: float | None) -> None:
        """A step whose time counts or, without a share, one whose memory does."""
        if contender.out_of_memory:
            return
        try:
            if share is not None:
                took = seconds(lambda: contender.evaluations.append(contender.step(share)), self.device)
                contender.seconds.append(took)
            elif self.device.type == "cuda":
                contender.peak_bytes = peak_on_gpu(lambda: contender.step(0.02), self.device)
            else:
                contender.peak_bytes = self.resident() + peak_on_cpu(lambda: contender.step(0.02))
        except torch.OutOfMemoryError:
            contender.out_of_memory = True
        clear(self.parameters)
        if contender.out_of_memory:
            torch.cuda.empty_cache()
