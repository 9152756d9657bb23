"""An erasure as the training loop sees it: two objectives a step, a UNet that moves, a folder at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erase.diffusion.batch import Batch, Examples, split
from erase.diffusion.blocks import block_of
from erase.diffusion.conditioning import Conditioning
from erase.diffusion.denoiser import Autocast, EvaluationCounter, make_denoiser
from erase.diffusion.losses import ForgetLoss, RetainLoss
from erase.errors import UserError
from erase.parameters import LoRA, Parameters, frozen_reference
from erase.protocols import Objective, Shard
from erase.randomness import derive


class ErasureTask:
    """The UNet of a pipeline, a pool of examples to forget and one to keep."""

    def __init__(
        self,
        pipeline: Any,
        parameters: Parameters,
        losses: tuple[ForgetLoss, RetainLoss],
        examples: tuple[Examples, Examples],
        told: Mapping[str, Conditioning],
        *,
        forget_weight: float = 1.0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.pipeline, self.parameters, self.seed, self.forget_weight = pipeline, parameters, seed, forget_weight
        self.forget_loss, self.retain_loss = losses
        self.forget, self.retain = examples
        self.told = told
        unet = pipeline.unet
        needs_reference = self.forget_loss.needs_reference or self.retain_loss.needs_reference
        copies = needs_reference and not isinstance(parameters, LoRA)
        self._reference = frozen_reference(unet, has_adapter=False) if copies else None
        torch.manual_seed(derive(seed, "adapter"))
        self._trainable = parameters.select(unet)
        if isinstance(parameters, LoRA):
            self._reference = frozen_reference(unet, has_adapter=True)
        unet.eval()  # a loss is a function of the weights: dropout stands still
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        self.denoiser = make_denoiser(pipeline, autocast)
        self.counter = EvaluationCounter()

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        return self._trainable

    @property
    def buffers(self) -> dict[str, Tensor]:
        """None: a UNet has no running statistics."""
        return {}

    @property
    def blocks(self) -> list[str]:
        """Each trainable parameter's part of the UNet, such as ``up.attention``."""
        return [block_of(name) for name in self._trainable]

    @property
    def evaluations(self) -> int:
        """Denoiser evaluations so far in this process, one an example, the frozen base's among them."""
        return self.counter.count

    def objectives(self, step: int, shard: Shard) -> tuple[Objective, Objective]:
        """The retain and the forget objective of a step; the forget one carries its weight.

        The frozen base is asked for an objective's target when that objective is first looked at. Wherever a rule has
        moved the weights by then, the base is where it was.
        """
        retain = self._objective(self.retain_loss, self._draw("retain", self.retain, step, shard), 1.0, shard)
        forget = self._draw("forget", self.forget, step, shard)
        return retain, self._objective(self.forget_loss, forget, self.forget_weight, shard)

    def after_step(self) -> None:
        """Nothing: every trained parameter may move as a whole."""

    def describe_batch(self, step: int, shard: Shard) -> list[str]:
        """The prompts of a step's two batches."""
        pools = (("forget", self.forget), ("retain", self.retain))
        return [f"{name}: {text}" for name, pool in pools for text in self._draw(name, pool, step, shard).texts]

    def save(self, folder: Path) -> None:
        """The pipeline as a diffusers folder, or a LoRA's weights."""
        unet = self.pipeline.unet
        if not isinstance(self.parameters, LoRA):
            self.pipeline.save_pretrained(folder, safe_serialization=True)
            return
        from peft.utils import get_peft_model_state_dict

        layers = get_peft_model_state_dict(unet)
        config = {"unet_lora_adapter_metadata": unet.peft_config["default"].to_dict()}
        type(self.pipeline).save_lora_weights(folder, unet_lora_layers=layers, safe_serialization=True, **config)

    def _draw(self, name: str, pool: Examples, step: int, shard: Shard) -> Batch:
        batch = pool.draw(shard.total, self.told, self.denoiser.schedule.steps, self.seed, name, step)
        return batch.to(next(self.denoiser.unet.parameters()).device)

    def _objective(self, loss: ForgetLoss | RetainLoss, batch: Batch, weight: float, shard: Shard) -> Objective:
        @cache
        def micro() -> list[Batch]:
            return [self._with_target(loss, split(batch, *span)) for span in shard.spans()]

        def evaluate() -> Iterator[Tensor]:
            for part in micro():
                with self.counter.watch(self.denoiser.unet):
                    values = loss(self.denoiser, part)
                yield weight * values.mean() / shard.micro_batches

        if not loss.needs_reference:
            micro()  # costs nothing
        return evaluate

    @torch.no_grad()
    def _with_target(self, loss: ForgetLoss | RetainLoss, batch: Batch) -> Batch:
        with ExitStack() as stack:
            unet = self.denoiser.unet
            if loss.needs_reference:
                if self._reference is None:
                    raise UserError(f"{loss.name} needs the frozen base")
                unet = stack.enter_context(self._reference())
            stack.enter_context(self.counter.watch(unet))
            return batch.with_target(loss.target(self.denoiser.of(unet), batch))
