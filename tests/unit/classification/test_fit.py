"""A network that does not go with pictures, classes or batches is refused in words."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import ViTConfig

from erase.classification.batch_norm import BatchNormMode
from erase.classification.fit import batch_norm_problems, unfit
from erase.classification.models import ModelSettings, make_model
from erase.classification.networks import build
from tests.unit.classification.unlearnings import linear, tiny_splits, two_layers


def vit() -> nn.Module:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = ViTConfig(image_size=16, patch_size=8, num_channels=1, num_labels=3, **small)
    settings = ModelSettings("transformers", "vit", "standard")
    return build(settings, 3, 1, config.to_dict())


def test_a_network_that_fits_has_no_problem() -> None:
    assert list(unfit(linear(), tiny_splits())) == []


def test_another_number_of_classes_is_told() -> None:
    assert list(unfit(linear(5), tiny_splits())) == [
        "model: the network tells 5 classes apart, the data has 3; give one that fits"
    ]


@pytest.mark.parametrize("source", ["transformers", "timm", "torchvision"])
def test_a_size_that_the_network_cannot_take_is_told(source: str) -> None:
    """Each library raises an error of its own: ValueError, AssertionError, RuntimeError."""
    network = {
        "transformers": vit,
        "timm": lambda: make_model(ModelSettings("timm", "test_vit", "standard"), 3, 1),
        "torchvision": lambda: nn.Sequential(nn.Conv2d(1, 1, 5), nn.Flatten(), nn.Linear(1, 3)),
    }[source]()
    (problem,) = unfit(network, tiny_splits())
    assert problem.startswith("model.architecture: the network takes no pictures of 2 x 2 pixels (")


@pytest.mark.parametrize(
    ("mode", "batch", "at_random", "words"),
    [
        ("frozen", 8, True, "batch_norm: found frozen with weights drawn at random"),
        ("batch", 1, False, "train_batch_size: found 1; batch_norm batch"),
        ("frozen", 1, False, None),
        ("batch", 2, True, None),
    ],
)
def test_statistics_that_cannot_be_are_refused_where_there_is_batch_norm(
    mode: BatchNormMode, batch: int, at_random: bool, words: str | None
) -> None:
    found = list(batch_norm_problems(two_layers(), mode, batch, at_random))
    assert len(found) == (words is not None)
    assert words is None or found[0].startswith(words)
    assert list(batch_norm_problems(linear(), mode, batch, at_random)) == []


def test_statistics_that_nothing_would_move_are_refused_with_random_weights() -> None:
    (problem,) = batch_norm_problems(two_layers(), "batch", 8, at_random=True, retains=False)
    assert problem.startswith("batch_norm: found batch with weights drawn at random and update.name forget_only")
    assert list(batch_norm_problems(two_layers(), "batch", 8, at_random=False, retains=False)) == []
