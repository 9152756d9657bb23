"""What is read off a classifier's logits, worked by hand and at the ends of float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from erase.classification.images import Images, Normalise
from erase.errors import UserError
from erase.evaluation.unlearning.outputs import FEATURES, Outputs, evaluating, m_entropy, predict, required
from tests.unit.evaluation.unlearning.made_outputs import outputs_of, random_outputs

THREE = outputs_of([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], [0, 1])


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))
    body(torch.randn(16, 1, 8, 8))  # running statistics of its own
    return body


def make_images(count: int = 10) -> Images:
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Images(pixels, torch.arange(count) % 3, tuple(map(str, range(count))))


NORMALISE = Normalise((0.5,), (0.25,))


def test_modified_entropy_by_hand() -> None:
    right = -(0.3 * math.log(0.7) + 0.2 * math.log(0.8) + 0.1 * math.log(0.9))
    wrong = -(0.8 * math.log(0.2) + 0.7 * math.log(0.3) + 0.1 * math.log(0.9))
    assert m_entropy(THREE) == pytest.approx([right, wrong])


def test_modified_entropy_of_a_sample_is_its_own_whatever_the_labels_of_others() -> None:
    alone = [m_entropy(outputs_of([[0.7, 0.2, 0.1]], [label]))[0] for label in (0, 1)]
    assert m_entropy(THREE).tolist() == pytest.approx(alone)


def test_modified_entropy_is_low_only_where_the_model_is_sure_and_right() -> None:
    sure_right, unsure, sure_wrong = m_entropy(
        outputs_of([[0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.01, 0.98, 0.01]], [0] * 3)
    )
    assert 0 < sure_right < unsure < sure_wrong


def test_modified_entropy_stays_finite_where_probabilities_round_to_0_and_1() -> None:
    extreme = Outputs(np.array([[1000.0, 0.0], [1000.0, 0.0]]), np.array([0, 1]))
    assert m_entropy(extreme).tolist() == [0.0, 2000.0]


def test_margin_is_the_logit_of_the_confidence() -> None:
    made = random_outputs(50, 0, 1.0)
    confidence = np.exp(made.log_confidence)
    assert made.margin == pytest.approx(np.log(confidence) - np.log(1 - confidence))


def test_margin_is_exact_where_the_confidence_rounds_to_0_and_1() -> None:
    extreme = Outputs(np.array([[800.0, 0.0, 0.0], [800.0, 0.0, 0.0]]), np.array([0, 1]))
    assert extreme.margin.tolist() == pytest.approx([800 - math.log(2), -800.0], rel=1e-14)


def test_log_complements_are_logarithms_of_what_the_others_share() -> None:
    made = random_outputs(20, 3, 2.0)
    assert np.exp(made.log_complements) == pytest.approx(1 - made.probabilities)


def test_features_of_a_known_sample() -> None:
    of = {name: feature(THREE) for name, feature in FEATURES.items()}
    assert of["confidence"] == pytest.approx([0.7, 0.2])
    assert of["correctness"].tolist() == [1.0, 0.0]
    assert of["entropy"] == pytest.approx([entropy([0.7, 0.2, 0.1])] * 2)
    assert of["probabilities"] == pytest.approx(np.array([[0.7, 0.2, 0.1]] * 2))


def test_logits_are_those_of_evaluation_mode_whatever_the_batch_size() -> None:
    model, images = make_model(), make_images()
    model.eval()
    expected = model(NORMALISE(images.pixels)).detach().double().numpy()
    model.train()
    for size in (1, 4, 100):
        assert predict(model, images, NORMALISE, size).logits == pytest.approx(expected, abs=1e-5)


def test_predicting_changes_nothing_of_the_model() -> None:
    model = make_model().train()
    model[1].eval()  # a frozen batch norm inside a model that trains
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = predict(model, make_images(), NORMALISE)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert made.labels.tolist() == make_images().labels.tolist()


def test_modes_come_back_after_an_error() -> None:
    model = make_model().train()
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.zeros(1, 2, 3, 3))
    assert model.training


def test_no_pictures_give_no_outputs() -> None:
    assert len(predict(make_model(), make_images(0), NORMALISE)) == 0


def test_labels_beyond_the_head_are_refused() -> None:
    with pytest.raises(UserError, match=r"labels 0 to 2 do not match a head of 2 classes"):
        Outputs(np.zeros((3, 2)), np.array([0, 1, 2]))


def test_a_model_that_diverged_is_refused() -> None:
    with pytest.raises(UserError, match="diverged"):
        Outputs(np.array([[0.0, np.nan]]), np.array([0]))


def test_missing_and_empty_parts_are_named_all_at_once() -> None:
    empty = Outputs(np.empty((0, 3)), np.empty(0, dtype=np.int64))
    with pytest.raises(UserError) as caught:
        required({"forget": empty, "retain": THREE}, "forget", "retain", "test")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["forget", "test"]
