"""`--dry_run`: what would be trained, and what it would take, without training or writing anything."""

from __future__ import annotations

import torch

from erase.diffusion.prepare import load_base
from erase.diffusion.settings import Plan
from erase.parameters import LoRA
from erase.training.erasure import ErasureRun

GIB = 2**30


def dry_run(run: ErasureRun, plan: Plan) -> str:
    """A report; zero matched parameters, or a prompt that the model cannot read, is an error."""
    base = load_base(run, plan, torch.device("cpu"))
    unet = base.pipeline.unet
    before = sum(p.numel() for p in unet.parameters())
    trainable = run.parameters.select(unet)
    count = sum(p.numel() for p in trainable.values())
    shown = [f"  {name}  {tuple(p.shape)}" for name, p in list(trainable.items())[:8]]
    examples = run.train_batch_size * run.gradient_accumulation_steps
    latents = 0 if run.retain_loss.needs_images else run.latents.retain
    return "\n".join(
        [
            f"base: {run.model} ({before:,} parameters in the UNet), hash {base.hash[:12]}",
            *(f"forget: {t.target.concept}: {len(t.prompts)} prompts, such as {t.prompts[0]!r}" for t in plan.targets),
            f"retain: {len(plan.retain)} prompts" if plan.retain else f"retain: images in {run.retain.images}",
            f"update: {run.update.name}, losses {run.forget_loss.name} + {run.retain_loss.name}",
            f"parameters: {run.parameters.name}: {len(trainable)} tensors, {count:,} numbers",
            *shown,
            *([f"  ... and {len(trainable) - len(shown)} more"] if len(trainable) > len(shown) else []),
            f"steps: {run.max_train_steps}, each of {examples} + {examples} examples a process",
            f"latents: {run.latents.forget} of targets + {run.latents.neutral} without them + {latents} to keep, "
            f"{run.latents.steps} steps each",
            f"memory of weights, gradients and optimizer: {weight_memory(run, before, count) / GIB:.2f} GiB, "
            "activations not counted",
        ]
    )


def weight_memory(run: ErasureRun, parameters: int, trainable: int) -> int:
    """Bytes in float32: the UNet, its frozen copy, gradient, moments and what the update rule holds."""
    copies = 1 if isinstance(run.parameters, LoRA) else 2
    moments = {"sgd": 1}.get(run.optimizer, 2)
    return 4 * (copies * parameters + (1 + moments + run.update.buffers) * trainable)
