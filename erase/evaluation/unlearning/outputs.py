"""What a classifier says of a set of pictures: all that its judges look at, and what they read off it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr, log_softmax, logsumexp
from torch import Tensor, nn

from erase.classification.images import Images
from erase.errors import UserError

Array = NDArray[np.float64]
PARTS = ("forget", "retain", "validation", "test", "test_forgotten")
"""The parts of a data set that a model is judged on; the last is empty unless a class is forgotten."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """One model's logits on one part, with the labels that the model was, or would have been, trained on."""

    logits: Array
    """``[n, k]``"""
    labels: NDArray[np.int64]
    """``[n]``, in 0..k-1"""

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.labels.shape != self.logits.shape[:1]:
            raise ValueError(f"logits must be [n, k] and labels [n]: {self.logits.shape}, {self.labels.shape}")
        if not len(self):
            return
        classes = self.logits.shape[1]
        if classes < 2:
            raise UserError(f"outputs: found {classes} class; a classifier that is judged has two at least")
        if not 0 <= self.labels.min() <= self.labels.max() < classes:
            found = f"{self.labels.min()} to {self.labels.max()}"
            raise UserError(
                f"outputs: labels {found} do not match a head of {classes} classes; use the model's own data"
            )
        if not np.isfinite(self.logits).all():
            raise UserError("outputs: found logits that are not finite: the model diverged; lower learning_rate")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def log_probabilities(self) -> Array:
        """``[n, k]`` log-softmax."""
        return np.asarray(log_softmax(self.logits, axis=1))

    @cached_property
    def probabilities(self) -> Array:
        """``[n, k]`` softmax."""
        return np.exp(self.log_probabilities)

    @cached_property
    def log_confidence(self) -> Array:
        """``[n]`` log p_y, the log-probability of the label; its negative is the loss."""
        return self.log_probabilities[np.arange(len(self)), self.labels]

    @cached_property
    def margin(self) -> Array:
        """``[n]`` log p_y - log(1 - p_y), confidence on the scale of logits; exact also where p_y rounds to 0 or 1."""
        return self.log_confidence - self.log_complements[np.arange(len(self)), self.labels]

    @cached_property
    def log_complements(self) -> Array:
        """``[n, k]`` log(1 - p_i). Only the largest p can be near 1: there it is the sum of the others."""
        first = (np.arange(len(self)), self.logits.argmax(axis=1))
        others, smaller = self.log_probabilities.copy(), self.probabilities.copy()
        others[first], smaller[first] = -np.inf, 0.0
        found = np.log1p(-smaller)
        found[first] = logsumexp(others, axis=1)
        return found

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``[n]`` whether the largest logit is the label's."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)


Parts = Mapping[str, Outputs]
"""A model's outputs by the name of the part, see ``PARTS``."""


def m_entropy(outputs: Outputs) -> Array:
    """Modified entropy: -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i), ``[n]``, 0 or more.

    Song & Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", equation 8. It is low
    only where the model is sure and right.
    """
    label = (np.arange(len(outputs)), outputs.labels)
    weights, logs = outputs.probabilities.copy(), outputs.log_complements.copy()
    weights[label], logs[label] = np.exp(outputs.log_complements[label]), outputs.log_confidence
    return -np.asarray((weights * logs).sum(axis=1))


FEATURES: dict[str, Callable[[Outputs], Array]] = {
    "confidence": lambda outputs: np.exp(outputs.log_confidence),
    "correctness": lambda outputs: outputs.correct.astype(np.float64),
    "entropy": lambda outputs: entr(outputs.probabilities).sum(axis=1),
    "m_entropy": m_entropy,
    "probabilities": lambda outputs: outputs.probabilities,
}
"""What an attack may look at, ``[n]`` or ``[n, k]``. Entropies are in nats."""


def required(parts: Parts, *names: str) -> list[Outputs]:
    """The parts of these names; refuses one that is missing or empty."""
    problems = [
        f"{name}: found no samples; this part cannot be left out" for name in names if not len(parts.get(name, ()))
    ]
    if problems:
        raise UserError(*problems)
    return [parts[name] for name in names]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that each module was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def predict(model: nn.Module, images: Images, normalise: Callable[[Tensor], Tensor], batch_size: int = 256) -> Outputs:
    """A model's logits on all pictures, in their order, in evaluation mode and without gradients."""
    device = next(model.parameters()).device
    with evaluating(model):
        batches = images.pixels.split(batch_size) if len(images) else ()
        logits = [model(normalise(pixels.to(device))).cpu().double() for pixels in batches]
    stacked = torch.cat(logits) if logits else torch.empty(0, 0, dtype=torch.float64)
    return Outputs(stacked.numpy(), images.labels.cpu().numpy())
