"""Softmax regression in plain numpy: every gradient that the published methods need, written from its formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def one_hot(labels: NDArray[Any], classes: int) -> Array:
    return np.eye(classes)[labels]


@dataclass(frozen=True)
class Samples:
    """``[n, d]`` inputs and ``[n]`` labels; the weights W are ``[k, d]``, the logits x W^T."""

    inputs: Array
    labels: NDArray[np.int64]

    def probabilities(self, weights: Array) -> Array:
        return softmax(self.inputs @ weights.T)

    def losses(self, weights: Array) -> Array:
        """``[n]`` cross-entropy."""
        return -np.log(self.probabilities(weights)[np.arange(len(self.labels)), self.labels])

    def slopes(self, weights: Array) -> Array:
        """``[n, k, d]`` gradient of each sample's cross-entropy: (p - y) x^T."""
        error = self.probabilities(weights) - one_hot(self.labels, len(weights))
        return error[:, :, None] * self.inputs[:, None, :]

    def gradient(self, weights: Array) -> Array:
        """``[k, d]`` of the mean cross-entropy."""
        return self.slopes(weights).mean(0)

    def hessian_times(self, weights: Array, vector: Array) -> Array:
        """H V of the mean cross-entropy: mean of (diag(p) - p p^T) V x x^T."""
        p = self.probabilities(weights)
        along = self.inputs @ vector.T
        curved = p * along - p * (p * along).sum(1, keepdims=True)
        return curved.T @ self.inputs / len(p)

    def towards(self, weights: Array, teacher: Array, temperature: float) -> Array:
        """Gradient of the mean of T^2 KL(softmax(t / T) || softmax(s / T)): T (softmax(s / T) - softmax(t / T)) x^T."""
        student = softmax(self.inputs @ weights.T / temperature)
        taught = softmax(self.inputs @ teacher.T / temperature)
        return temperature * (student - taught).T @ self.inputs / len(self.inputs)

    def labelled(self, labels: NDArray[Any]) -> Samples:
        """The same inputs with other labels."""
        return Samples(self.inputs, labels)

    def squared_slopes(self, weights: Array) -> Array:
        """Mean over single samples of the squared gradient."""
        found: Array = np.square(self.slopes(weights)).mean(0)
        return found
