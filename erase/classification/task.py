"""A classifier's unlearning as the training loop sees it: two objectives a step, a network, a folder at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from erase.classification.batch_norm import BatchNormMode, evaluate, has_batch_norm, running_statistics
from erase.classification.fit import unfit, unfit_losses
from erase.classification.heads import grow_head, with_smaller_head
from erase.classification.images import Batch
from erase.classification.losses import ForgetLoss, RetainLoss
from erase.classification.masks import Mask, Masked, NoMask
from erase.classification.material import Material
from erase.classification.models import ModelSettings, make_model, save_classifier
from erase.classification.networks import WRAPPER
from erase.classification.splits import Splits
from erase.classification.starts import Start, Trained
from erase.errors import UserError, refuse
from erase.gradients import preserved, restore
from erase.parameters import LoRA, Parameters, frozen_reference
from erase.protocols import Objective, Shard
from erase.randomness import derive

Loss = ForgetLoss | RetainLoss
Teacher = Callable[[], AbstractContextManager[nn.Module]]
Weights = Callable[[], AbstractContextManager[None]]
Looks = dict[str, Weights]
"""The objectives that a step has looked at, each with the way back to the weights it was first looked at with."""


class UnlearningTask:
    """A network that has learned ``splits.train`` and is to be as if it had learned ``splits.retain`` alone.

    Made in this order: the original is copied, where a loss asks for it; the mask is found at its weights; the start
    moves them; and the last layer grows, where the forget loss asks for a class more.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Parameters,
        losses: tuple[ForgetLoss, RetainLoss],
        splits: Splits,
        *,
        total_steps: int,
        device: torch.device | str = "cpu",
        describe: ModelSettings | None = None,
        fresh: Callable[[], nn.Module] | None = None,
        start: Start | None = None,
        mask: Mask | None = None,
        batch_norm: BatchNormMode = "frozen",
        learn_from: Literal["retain", "all"] = "retain",
        forget_weight: float = 1.0,
        seed: int = 0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        looked: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:
        self.model, self.parameters, self.splits, self.seed = model.to(device), parameters, splits, seed
        self.forget_loss, self.retain_loss = losses
        self.forget_weight, self.total_steps, self.learn_from = forget_weight, total_steps, learn_from
        self.device, self.describe, self.autocast = torch.device(device), describe, autocast
        self.looked = looked or (lambda step: (step, step))  # how often at each objective before a step, retain first
        self.batch_norm: BatchNormMode = batch_norm
        self._make, self._evaluated = fresh, 0
        self._tracks = batch_norm == "batch" and has_batch_norm(model)
        mask, start = mask or NoMask(), start or Trained()
        refuse(self._problems(mask))
        self._original = self._reference(model) if any(loss.needs_original for loss in losses) else None
        self._random = self._reference(self._fresh("teacher")) if self.forget_loss.needs_random else None
        self._trainable = parameters.select(model)
        material = Material(splits, self._trainable, self._logits, self._fresh, self.device, seed)
        self.masked = Masked(mask, model, material)
        start(model, material)
        if self.forget_loss.extra_class:
            grow_head(model, seed)
            self._trainable = parameters.select(model)
        self.masked.hold(self._trainable)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""
        return self._trainable

    @property
    def blocks(self) -> list[str]:
        """Each trainable parameter's part of the network, such as ``layer3`` or ``fc``."""
        return [name.removeprefix(WRAPPER).split(".")[0] for name in self._trainable]

    @property
    def buffers(self) -> dict[str, Tensor]:
        """What training moves besides the parameters, by name: running statistics, with ``batch_norm`` batch."""
        return running_statistics(self.model) if self.batch_norm == "batch" else {}

    @property
    def evaluations(self) -> int:
        """Examples that a network was evaluated on so far, by start, mask, teachers and losses, in this process."""
        return self._evaluated

    def objectives(self, step: int, shard: Shard) -> tuple[Objective, Objective]:
        """The retain and the forget objective of a step; the forget one carries its weight.

        A batch is drawn, and its target worked out, when its objective is first looked at. What depends on the
        network's own weights is taken at those that it has now: targets of its own answers, and with ``batch_norm``
        batch the running statistics, wherever a rule has shifted the weights by then.
        """
        if self._tracks and shard.processes * shard.micro_batches > 1:
            raise UserError(
                f"batch_norm: batch takes the statistics of a whole step, in one process and one micro-batch; found "
                f"{shard.processes} and {shard.micro_batches}; use batch_norm frozen, or one of each"
            )
        begun = self._weights_kept() if self.forget_loss.needs_student else nullcontext
        looks: dict[str, Weights] = {}
        retain, forget = (self._objective(name, step, shard, begun, looks) for name in ("retain", "forget"))
        return retain, forget

    def after_step(self) -> None:
        """Puts back the entries that a mask holds."""
        self.masked.put_back()

    def describe_batch(self, step: int, shard: Shard) -> list[str]:
        """The ids of a step's two batches."""
        return [f"{name}: {', '.join(self._draw(name, step, shard).ids)}" for name in ("forget", "retain")]

    def finished(self) -> nn.Module:
        """The network as it is saved: where it was given a class more, a copy without it."""
        return with_smaller_head(self.model) if self.forget_loss.extra_class else self.model

    def save(self, folder: Path) -> None:
        """The classifier with the hashes of its splits, and the mask, if there is one."""
        if self.describe is None:
            raise ValueError("a network is saved with its ModelSettings; give `describe`")
        extra = {"splits": self.splits.hashes()}
        save_classifier(self.finished(), self.describe, folder, self.splits.classes, self.splits.normalise, extra)
        self.masked.save(folder)

    def _problems(self, mask: Mask) -> Iterator[str]:
        if isinstance(self.parameters, LoRA):
            yield "parameters.name: lora is made for diffusion models; choose full for a classifier"
        yield from unfit_losses(self.forget_loss, self.retain_loss, mask)
        yield from unfit(self.model, self.splits, self.device)

    def _fresh(self, purpose: str) -> nn.Module:
        """The network with weights drawn from the seed, others for each purpose."""
        settings, splits = self.describe, self.splits
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, purpose))
            if self._make is not None:
                return self._make().to(self.device)
            if settings is None:
                raise ValueError("a network is drawn anew by its ModelSettings; give `describe` or `fresh`")
            revision = settings.revision if settings.source == "transformers" else None
            bare = replace(settings, checkpoint=None, pretrained=False, replace_head=False, revision=revision)
            return make_model(bare, len(splits.classes), splits.train.channels).to(self.device)

    @staticmethod
    def _reference(model: nn.Module) -> Teacher:
        return frozen_reference(model, has_adapter=False)

    def _draw(self, name: str, step: int, shard: Shard) -> Batch:
        kept = self.splits.train if self.learn_from == "all" else self.splits.retain
        pool = self.splits.forget if name == "forget" else kept
        retained, forgot = self.looked(step)
        place = forgot if name == "forget" else retained
        batch = pool.draw(shard.total, self.seed, name, place, self.splits.normalise, self.splits.augment)
        return replace(batch, progress=step / max(1, self.total_steps))

    def _objective(self, name: str, step: int, shard: Shard, begun: Weights, looks: Looks) -> Objective:
        forgetting = name == "forget"
        loss: Loss = self.forget_loss if forgetting else self.retain_loss
        weight = self.forget_weight if forgetting else 1.0

        @cache
        def parts() -> list[Batch]:
            return self._ready(loss, self._draw(name, step, shard), shard, begun)

        def look() -> Iterator[Tensor]:
            batches, track = parts(), self._looks_first(name, looks)
            if track and "forget" in looks:
                self._follow(batches, looks["forget"])
                track = False
            with self.masked.on(self._trainable, forgetting):
                for part in batches:
                    logits = self._logits(self.model, part.images, self.batch_norm, track)
                    yield weight * loss(logits, part).mean() / len(batches)
                penalty = loss.penalty(self._trainable.values(), batches[0])
                if penalty is not None:
                    yield weight * penalty

        return look

    def _ready(self, loss: Loss, batch: Batch, shard: Shard, begun: Weights) -> list[Batch]:
        """A step's micro-batches in this process, with their targets."""
        if loss.whole_batch:
            with begun():
                batch = self._with_target(loss, self._moved(batch), shard.batch_size)
        parts = [self._moved(batch.part(*span)) for span in shard.spans()]
        return parts if loss.whole_batch else [self._with_target(loss, part, len(part)) for part in parts]

    def _looks_first(self, name: str, looks: Looks) -> bool:
        """Whether this is the look that running statistics follow; the first look of all is at the step's weights."""
        first = self._tracks and name not in looks
        if first:
            looks[name] = nullcontext if looks or name == "retain" else self._weights_kept()
        return first and name == "retain"

    @torch.no_grad()
    def _follow(self, batches: list[Batch], begun: Weights) -> None:
        """The running statistics follow a batch at the weights that the step began with: one evaluation more."""
        with begun():
            for part in batches:
                self._logits(self.model, part.images, self.batch_norm, track=True)

    def _weights_kept(self) -> Weights:
        """A way back to the weights as they are now; they are left as they were found."""
        kept = [p.detach().clone() for p in self._trainable.values()]

        @contextmanager
        def back() -> Iterator[None]:
            parameters = list(self._trainable.values())
            with preserved(parameters):
                restore(parameters, kept)
                yield

        return back

    @torch.no_grad()
    def _with_target(self, loss: Loss, batch: Batch, at_once: int) -> Batch:
        """The target is of the teacher, or of the network as it stands; so many examples are looked at at once."""

        def chunks(network: nn.Module, mode: BatchNormMode) -> Callable[[Tensor], Tensor]:
            return lambda images: torch.cat([self._logits(network, part, mode) for part in images.split(at_once)])

        asked = self._original if loss.needs_original else self._random if loss.needs_random else None
        student = chunks(self.model, self.batch_norm)
        if asked is None:
            return batch.with_target(loss.target(None, student, batch))
        with asked() as teacher:
            return batch.with_target(loss.target(chunks(teacher, "frozen"), student, batch))

    def _logits(
        self, network: nn.Module, images: Tensor, mode: BatchNormMode = "frozen", track: bool = False
    ) -> Tensor:
        self._evaluated += len(images)
        with self.autocast():
            return evaluate(network, images, batch_norm=mode, track=track)

    def _moved(self, batch: Batch) -> Batch:
        return replace(batch, images=batch.images.to(self.device), labels=batch.labels.to(self.device))
