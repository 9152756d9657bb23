"""`--dry_run`: what would be trained, and what it would take, without training or writing anything."""

from __future__ import annotations

import torch

from erase.config import dump
from erase.diffusion.pipelines import weighted_parts
from erase.diffusion.prepare import load_base
from erase.diffusion.settings import Plan
from erase.training.erasure import ErasureRun
from erase.training.evaluations import count_evaluations, neutral_latents
from erase.training.memory import bytes_of, estimate_memory
from erase.updates import label


def dry_run(run: ErasureRun, plan: Plan) -> str:
    """A report; zero matched parameters, or a prompt that the model cannot read, is an error."""
    base = load_base(run, plan, torch.device("cpu"))
    unet = base.pipeline.unet
    before = sum(p.numel() for p in unet.parameters())
    others = sum(bytes_of(part.parameters()) for part in weighted_parts(base.pipeline).values() if part is not unet)
    tokens = base.pipeline.tokenizer.model_max_length
    memory = estimate_memory(run, lambda: type(unet).from_config(unet.config), others, tokens)
    trainable = run.parameters.select(unet)
    count = sum(p.numel() for p in trainable.values())
    shown = [f"  {name}  {tuple(p.shape)}" for name, p in list(trainable.items())[:8]]
    examples = run.train_batch_size * run.gradient_accumulation_steps
    latents = 0 if run.retain_loss.needs_images else run.latents.retain
    neutral, share = neutral_latents(run, plan), max(1, run.latents.forget // len(plan.targets))
    return "\n".join(
        [
            f"base: {run.model} ({before:,} parameters in the UNet), hash {base.hash[:12]}",
            *(
                f"forget: {t.target.concept}: {used(len(t.prompts), share, 'forget')}, such as {t.prompts[0]!r}"
                for t in plan.targets
            ),
            f"retain: {used(len(plan.retain), run.latents.retain, 'retain')}"
            if plan.retain
            else f"retain: images in {run.retain.images}",
            f"update: {label(dump(run.update))}, losses {run.forget_loss.name} + {run.retain_loss.name}",
            f"parameters: {run.parameters.name}: {len(trainable)} tensors, {count:,} numbers",
            *shown,
            *([f"  ... and {len(trainable) - len(shown)} more"] if len(trainable) > len(shown) else []),
            f"steps: {run.max_train_steps}, each of {examples} + {examples} examples a process",
            f"latents: {run.latents.forget} of targets + {neutral} without them + {latents} to keep, "
            f"{run.latents.steps} steps each",
            count_evaluations(run, plan, base.pipeline.scheduler).describe(),
            f"attention: {', '.join(sorted({type(p).__name__ for p in unet.attn_processors.values()}))}",
            memory.describe(),
        ]
    )


def used(prompts: int, latents: int, key: str) -> str:
    """How many prompts there are, and that some are left out where each cannot have a picture."""
    few = f", of which {latents} are drawn: raise latents.{key} to use them all" if latents < prompts else ""
    return f"{prompts} prompts{few}"
