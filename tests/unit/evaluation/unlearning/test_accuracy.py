"""UA, RA and TA of parts whose mistakes are counted by hand."""

from __future__ import annotations

import pytest
from sklearn.metrics import accuracy_score

from erase.errors import UserError
from erase.evaluation.unlearning.accuracy import accuracies, accuracy
from tests.unit.evaluation.unlearning.made_outputs import confident, made_parts, random_outputs


def test_scores_of_counted_mistakes() -> None:
    parts = {
        "forget": confident([0.9, 0.1, 0.1, 0.1]),
        "retain": confident([0.9] * 9 + [0.1]),
        "validation": confident([0.9, 0.1]),
        "test": confident([0.9] * 4 + [0.1]),
        "test_forgotten": confident([0.1, 0.1, 0.9]),
    }
    found = accuracies(parts)
    assert found == pytest.approx({"UA": 75, "RA": 90, "VA": 50, "TA": 80, "TA_forgotten": 100 / 3})


def test_accuracy_is_that_of_scikit_learn() -> None:
    made = random_outputs(200, 5, 1.0)
    assert accuracy(made) == pytest.approx(100 * accuracy_score(made.labels, made.logits.argmax(1)))


def test_an_empty_part_has_no_score() -> None:
    assert "TA_forgotten" not in accuracies(made_parts())


def test_an_empty_forget_set_is_refused() -> None:
    with pytest.raises(UserError, match="forget"):
        accuracies({"retain": confident([0.9]), "test": confident([0.9])})
