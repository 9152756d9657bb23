"""How often a classifier is right on each part: the scores UA, RA and TA of unlearning."""

from __future__ import annotations

import numpy as np

from erase.evaluation.unlearning.outputs import Outputs, Parts, required


def accuracy(outputs: Outputs) -> float:
    """The share of samples whose label has the largest logit, in percent."""
    return 100 * float(np.mean(outputs.correct))


def accuracies(parts: Parts) -> dict[str, float]:
    """UA = 100 - acc(D_f), RA = acc(D_r), VA and TA = accuracy on validation and test, all in percent.

    Where a class is forgotten the test set is without it, and ``TA_forgotten`` is the accuracy on its test pictures.
    """
    forget, retain, test = required(parts, "forget", "retain", "test")
    found = {"UA": 100 - accuracy(forget), "RA": accuracy(retain), "TA": accuracy(test)}
    for key, name in (("VA", "validation"), ("TA_forgotten", "test_forgotten")):
        if len(parts.get(name, ())):
            found[key] = accuracy(parts[name])
    return found
