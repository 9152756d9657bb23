"""Outputs of chosen probabilities, so that every score of them is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from erase.evaluation.unlearning.outputs import Outputs


def outputs_of(probabilities: Sequence[Sequence[float]], labels: Sequence[int]) -> Outputs:
    """Logits whose softmax is just that."""
    return Outputs(np.log(np.array(probabilities, dtype=np.float64)), np.array(labels, dtype=np.int64))


def confident(confidences: Sequence[float], classes: int = 3) -> Outputs:
    """Samples of label 0 with these confidences; the rest goes to the other classes alike."""
    rows = [[c, *[(1 - c) / (classes - 1)] * (classes - 1)] for c in confidences]
    return outputs_of(rows, [0] * len(rows))


def random_outputs(count: int, seed: int, strength: float, classes: int = 4) -> Outputs:
    """Normal logits of the scale 1, that of the label raised by ``strength``."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes))
    logits[np.arange(count), labels] += strength
    return Outputs(logits, labels)


def made_parts(seed: int = 0, forget: float = 1.0, kept: float = 4.0, count: int = 60) -> dict[str, Outputs]:
    """A model that is sure of what it retains, less so of the test set, and as sure of the forget set as asked."""
    return {
        "forget": random_outputs(count // 2, seed + 1, forget),
        "retain": random_outputs(3 * count, seed + 2, kept),
        "validation": random_outputs(count, seed + 3, kept - 1),
        "test": random_outputs(count, seed + 4, kept - 1),
        "test_forgotten": Outputs(np.empty((0, 0)), np.empty(0, dtype=np.int64)),
    }
