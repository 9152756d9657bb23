"""Distances to the retrained model, with scipy and published rows as judges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from erase.evaluation.unlearning.distances import (
    average_gap,
    differences,
    js_distance,
    js_divergence,
    kl_divergence,
    tow,
)
from erase.evaluation.unlearning.outputs import Outputs
from tests.unit.evaluation.unlearning.made_outputs import outputs_of, random_outputs

ONE = random_outputs(40, 7, 1.0)
OTHER = Outputs(random_outputs(40, 8, 0.0).logits, ONE.labels)
RETRAIN = {"UA": 5.24, "RA": 100.0, "TA": 94.26, "MIA": 12.88}
"""CIFAR-10, ResNet-18, 10 % at random: table 1 of SalUn."""
PUBLISHED = [
    ({"UA": 0.63, "RA": 99.88, "TA": 94.06, "MIA": 2.70}, 3.78),
    ({"UA": 7.61, "RA": 99.67, "TA": 92.83, "MIA": 37.36}, 7.15),
    ({"UA": 2.85, "RA": 99.62, "TA": 93.93, "MIA": 14.39}, 1.15),
]


def test_js_distance_is_that_of_scipy_to_base_2() -> None:
    expected = jensenshannon(ONE.probabilities, OTHER.probabilities, base=2, axis=1).mean()
    assert js_distance(ONE, OTHER) == pytest.approx(expected)


def test_js_divergence_is_the_square_of_scipys_distance_in_nats() -> None:
    expected = (jensenshannon(ONE.probabilities, OTHER.probabilities, axis=1) ** 2).mean()
    assert js_divergence(ONE, OTHER) == pytest.approx(expected)


def test_kl_is_that_of_scipy_from_the_reference() -> None:
    expected = entropy(OTHER.probabilities, ONE.probabilities, axis=1).mean()
    assert kl_divergence(ONE, OTHER) == pytest.approx(expected)
    assert kl_divergence(OTHER, ONE) != pytest.approx(expected)


def test_distances_of_a_model_to_itself_are_zero() -> None:
    assert js_distance(ONE, ONE) == js_divergence(ONE, ONE) == kl_divergence(ONE, ONE) == 0


def test_js_of_opposite_certainties_is_largest_and_kl_stays_finite() -> None:
    sure, opposed = (Outputs(np.array([row]), np.array([0])) for row in ([900.0, 0.0], [0.0, 900.0]))
    assert js_distance(sure, opposed) == 1
    assert js_divergence(sure, opposed) == math.log(2)
    assert kl_divergence(sure, opposed) == 900


def test_models_asked_about_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        js_distance(outputs_of([[0.5, 0.5]], [0]), outputs_of([[0.5, 0.5]], [1]))


@pytest.mark.parametrize(("scores", "gap"), PUBLISHED)
def test_average_gap_of_published_rows(scores: dict[str, float], gap: float) -> None:
    assert average_gap(scores, RETRAIN) == pytest.approx(gap, abs=0.006)


def test_differences_have_their_sign() -> None:
    found = differences(PUBLISHED[0][0], RETRAIN)
    assert found == pytest.approx({"UA": -4.61, "RA": -0.12, "TA": -0.20, "MIA": -10.18})


def test_tow_by_hand() -> None:
    scores, reference = {"UA": 20.0, "RA": 90.0, "TA": 50.0}, {"UA": 10.0, "RA": 100.0, "TA": 100.0}
    assert tow(scores, reference) == pytest.approx(0.9 * 0.9 * 0.5)
    assert tow(reference, reference) == 1
