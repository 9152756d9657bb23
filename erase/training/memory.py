"""What a run of the diffusion path takes of the device's memory, estimated without a device and without weights.

What stays is counted: weights, the frozen copy, gradients, moments, average, the update rule's buffers, and half a GiB
for the CUDA context and libraries. What comes and goes is simulated: one micro-batch's forward and backward pass, with
LUR's mode exact the gradient of its gradient, through the real UNet with tensors that have a shape and no data (torch's
FakeTensorMode), so that everything autograd and autocast keep is in it. Not in it: what kernels and the allocator take
beside tensors, and cuDNN's workspaces; hence the margin.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erase.gradients import BUCKET_ELEMENTS, sketch_spans, world_size
from erase.parameters import LoRA, store_frozen
from erase.sharded import refresh
from erase.training.erasure import ErasureRun
from erase.training.launch import PRECISIONS, autocast
from erase.updates import LUR, rule_of

GIB = 2**30
MARGIN = 0.2
"""Of the whole: how far the device's own count may lie from the estimate."""
OVERHEAD = GIB // 2
"""The CUDA context and libraries."""
SKETCHES = 4
"""Of gradients, in float32, at one time: two objectives', the correction's, and that of the sum it is a share of."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device."""

    weights: int
    frozen_copy: int
    gradients: int
    moments: int
    average: int
    rule: int
    """What the update rule holds beside the one gradient, the sketches, and what one all-reduce carries."""
    passes: int
    """The most that one micro-batch's forward and backward pass takes on top."""
    optimizer_step: int
    """What the optimizer's step takes for a moment, when the rule's buffers and the passes are gone."""
    preparing: int
    """The most while the latents are made: the whole pipeline in float32 and a batch's forward pass."""

    @property
    def training(self) -> int:
        """The most at one time while training."""
        lasting = self.weights + self.frozen_copy + self.gradients + self.moments + self.average
        return OVERHEAD + lasting + max(self.rule + self.passes, self.optimizer_step)

    @property
    def peak(self) -> int:
        """The most at one time in all."""
        return max(self.training, OVERHEAD + self.preparing)

    def describe(self) -> str:
        """The estimate in three lines."""
        parts = {
            "weights": self.weights,
            "frozen copy": self.frozen_copy,
            "gradients": self.gradients,
            "optimizer": self.moments,
            "average": self.average,
            "update rule": self.rule,
            "forward and backward pass": self.passes,
            "CUDA context": OVERHEAD,
        }
        listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)
        return "\n".join(
            [
                f"memory of the device: about {self.peak / GIB:.1f} GiB (+-{100 * MARGIN:.0f} %)",
                f"  while training {self.training / GIB:.1f} GiB: {listed}",
                f"  while the latents are made {(OVERHEAD + self.preparing) / GIB:.1f} GiB, less with a smaller "
                "latents.batch_size; nothing where they are cached",
            ]
        )


def estimate_memory(run: ErasureRun, make_unet: Callable[[], Any], other_parts: int = 0, tokens: int = 77) -> Memory:
    """The estimate for a run on a UNet; ``make_unet`` is called on the meta device, where tensors have no data.

    ``other_parts``: bytes of the pipeline's other models.
    """
    with torch.device("meta"):
        unet = make_unet()
        chosen = run.parameters.select(unet)
    with FakeTensorMode():
        without_data(unet)
        refresh(chosen, unet)
        trainable = list(chosen.values())
        lora, full = isinstance(run.parameters, LoRA), bytes_of(unet.parameters())
        preparing = full + other_parts + sampling(unet, 2 * run.latents.batch_size, tokens)
        copied = (run.forget_loss.needs_reference or run.retain_loss.needs_reference) and not lora
        if lora and run.mixed_precision != "no":
            store_frozen(unet, PRECISIONS[run.mixed_precision])
        moved = bytes_of(trainable)
        bucket = min(moved, 4 * BUCKET_ELEMENTS) if world_size() > 1 else 0
        return Memory(
            weights=bytes_of(unet.parameters()),
            frozen_copy=full if copied else 0,
            gradients=moved,
            moments=moments(run, trainable),
            average=moved if run.ema_decay else 0,
            rule=run.update.buffers * moved + SKETCHES * 4 * sketch_spans(trainable)[-1].stop + bucket,
            passes=passes(run, unet, trainable, tokens),
            optimizer_step=moved if run.optimizer in ("adamw", "adam") else 0,
            preparing=preparing,
        )


def without_data(model: nn.Module) -> None:
    """Puts tensors of the CPU that have no data in the place of those on the meta device, which autocast does not know.

    Needs FakeTensorMode around it.
    """
    for part in model.modules():
        for name, p in part.named_parameters(recurse=False):
            empty = torch.empty(p.shape, dtype=p.dtype, device="cpu")
            part.register_parameter(name, nn.Parameter(empty, requires_grad=p.requires_grad))


def bytes_of(tensors: Any) -> int:
    """Of all of them together."""
    return sum(t.numel() * t.element_size() for t in tensors)


def moments(run: ErasureRun, trainable: list[nn.Parameter]) -> int:
    """Two a parameter for Adam, in float32 or 8 bits with a float32 for every 256; none or one for SGD."""
    entries = sum(p.numel() for p in trainable)
    if run.optimizer == "sgd":
        return 4 * entries if run.adam_beta1 else 0
    return 2 * (entries + entries // 64) if run.optimizer == "adamw8bit" else 8 * entries


def passes(run: ErasureRun, unet: Any, trainable: list[nn.Parameter], tokens: int) -> int:
    """Peak of a micro-batch's forward and backward pass, beyond weights and gradients."""
    for p in trainable:
        p.grad = torch.empty_like(p)
    unet.eval()
    if run.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    noisy, given = inputs(unet, run.train_batch_size, tokens)
    rule = rule_of(run.update)
    twice = isinstance(rule, LUR) and rule.mode == "exact"
    with sdpa_kernel(SDPBackend.MATH) if twice else nullcontext(), LiveBytes() as counter:
        with autocast(run, torch.device("cpu")):
            predicted = unet(noisy, **given).sample
        loss = predicted.float().square().mean()
        del predicted
        if twice:
            slopes = torch.autograd.grad(loss, trainable, create_graph=True, materialize_grads=True)
            torch.autograd.grad(slopes, trainable, [torch.empty_like(p) for p in trainable], materialize_grads=True)
        else:
            loss.backward()
    return counter.peak


@torch.no_grad()
def sampling(unet: Any, batch: int, tokens: int) -> int:
    """Peak of a forward pass without gradients in float32; guidance makes two rows of each latent."""
    noisy, given = inputs(unet, batch, tokens)
    with LiveBytes() as counter:
        unet.eval()(noisy, **given)
    return counter.peak


def inputs(unet: Any, batch: int, tokens: int) -> tuple[Tensor, dict[str, Any]]:
    """What the UNet of any family takes: latents, timesteps, prompt states and, for SDXL, the pooled ones and sizes."""
    config, side = unet.config, unet.config.sample_size
    noisy = torch.empty(batch, config.in_channels, side, side)
    given: dict[str, Any] = {
        "timestep": torch.empty(batch, dtype=torch.long),
        "encoder_hidden_states": torch.empty(batch, tokens, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        given["added_cond_kwargs"] = {"text_embeds": torch.empty(batch, pooled), "time_ids": torch.empty(batch, 6)}
    return noisy, given


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while it is on, and the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), before)
        return made

    def _add(self, storage: Any, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in before:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
