"""What is worked out from the data before the first step: gradients over a whole part of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from erase.classification.images import Images
from erase.classification.splits import Splits
from erase.randomness import generator

Gradient = dict[str, Tensor]
"""A tensor for each parameter, by name."""


@dataclass(frozen=True)
class Material:
    """What a start or a mask may look at besides the network's own weights."""

    splits: Splits
    parameters: Mapping[str, nn.Parameter]
    """Those that may move, by name."""
    evaluate: Callable[[nn.Module, Tensor], Tensor]
    """The network's logits for normalised images; running statistics are used, none move, and examples are counted."""
    fresh: Callable[[str], nn.Module]
    """The same network with weights drawn anew from the run's seed for a purpose; the same each time."""
    device: torch.device
    seed: int

    def batches(self, images: Images, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels, all in order, at most ``size`` at a time."""
        return self._normalised(images, torch.arange(len(images)).split(size))

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy, in nats."""
        return cross_entropy(self.evaluate(model, images), labels, reduction=reduction)

    def gradient_sum(self, model: nn.Module, images: Images, size: int = 256) -> Gradient:
        """The sum over all samples of the cross-entropy's gradient; ``size`` at a time changes nothing but rounding."""
        total = self._zeros()
        for pixels, labels in self.batches(images, size):
            for name, slope in self._gradient(self.loss(model, pixels, labels, "sum")):
                total[name] += slope
        return total

    def fisher(self, model: nn.Module, images: Images, size: int) -> Gradient:
        """The mean over batches of the squared gradient of a batch's mean cross-entropy.

        The order is drawn from the seed. Size 1 gives the empirical Fisher information's diagonal, size b about 1/b
        of that where the mean gradient is small. So all batches are of ``size`` samples, and the last one is filled
        up with the first samples; two sets that are compared need the same size, see :meth:`common_size`.
        """
        if not 0 < size <= len(images):
            raise ValueError(f"a batch of {size} of {len(images)} samples")
        order, count = torch.randperm(len(images), generator=generator(self.seed, "fisher")), -(-len(images) // size)
        total, places = self._zeros(), torch.cat([order, order])[: count * size]
        for pixels, labels in self._normalised(images, places.split(size)):
            for name, slope in self._gradient(self.loss(model, pixels, labels)):
                total[name] += slope.square() / count
        return total

    def common_size(self, size: int) -> int:
        """The largest batch, of at most ``size`` samples, that every part of the training set can fill."""
        return min(size, len(self.splits.forget), len(self.splits.retain))

    def _normalised(self, images: Images, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for places in parts:
            index = places.to(images.pixels.device)
            pixels, labels = images.pixels[index].to(self.device), images.labels[index].to(self.device)
            yield self.splits.normalise(pixels), labels

    def _gradient(self, loss: Tensor) -> Iterator[tuple[str, Tensor]]:
        slopes = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        return zip(self.parameters, slopes, strict=True)

    def _zeros(self) -> Gradient:
        return {name: torch.zeros_like(p) for name, p in self.parameters.items()}


@torch.no_grad()
def largest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """True for the round(share n) largest of all n entries of all tensors together; of equal ones the first."""
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[torch.argsort(flat, descending=True, stable=True)[: round(share * len(flat))]] = True
    parts = chosen.split([score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def none_of(key: str, share: float, parameters: Iterable[Tensor]) -> Iterator[str]:
    """Says of a share, by its key, that it comes to none of the parameters' entries."""
    count = sum(p.numel() for p in parameters)
    if round(share * count) == 0:
        yield f"{key}: found {share:g}, which of {count} entries is none; give more"
