"""Weights to begin with: saved classifiers, bare files, and what transformers has saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from erase.classification.checkpoints import check_labels, checkpoint_normalise, processor_normalise
from erase.classification.images import Normalise
from erase.classification.models import ModelSettings, load_classifier, make_model, save_classifier
from erase.errors import UserError

OWN = Normalise((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
NETWORKS: dict[str, PreTrainedModel] = {
    "vit": ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_labels=5, **SMALL)),
    "resnet": ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=5)
    ),
}


@pytest.fixture(params=sorted(NETWORKS))
def foreign(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder as transformers' save_pretrained leaves it."""
    NETWORKS[request.param].save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    NETWORKS["resnet"].save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


def of(place: Path, architecture: Path | None = None) -> ModelSettings:
    """The settings that begin with a transformers checkpoint."""
    return ModelSettings("transformers", str(architecture or place), "standard", place)


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_a_transformers_folder_or_its_weights_are_the_network_itself(foreign: Path, file: str) -> None:
    model, judge = make_model(of(foreign / file, foreign), 5, 3).eval(), NETWORKS[foreign.name].eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), judge(pixel_values=images).logits)


def test_weights_alone_are_put_where_transformers_puts_them(foreign: Path, tmp_path: Path) -> None:
    """The names in its files are not those of its modules."""
    (foreign / "model.safetensors").rename(tmp_path / "weights.safetensors")
    model, judge = make_model(of(tmp_path / "weights.safetensors", foreign), 5, 3), NETWORKS[foreign.name]
    assert all(torch.equal(model.state_dict()[f"network.{name}"], t) for name, t in judge.state_dict().items())


def test_what_is_saved_after_a_transformers_checkpoint_needs_its_folder_no_more(foreign: Path, tmp_path: Path) -> None:
    model = make_model(of(foreign), 5, 3).eval()
    save_classifier(model, of(foreign), tmp_path / "out", "abcde", OWN, {})
    foreign.rename(tmp_path / "gone")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(load_classifier(tmp_path / "out")[0](images), model(images))


def test_a_network_drawn_anew_must_be_of_the_checkpoint_s_kind(resnet: Path, tmp_path: Path) -> None:
    NETWORKS["vit"].save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match=r"model.architecture: found .*vit; .*resnet is a transformers"):
        make_model(of(resnet, tmp_path / "vit"), 5, 3)
    with pytest.raises(UserError, match=r"model.checkpoint: .*nowhere: there is no such file or folder"):
        make_model(of(tmp_path / "nowhere", resnet), 5, 3)


def test_a_hub_id_that_cannot_be_fetched_is_named() -> None:
    with pytest.raises(UserError, match=r"model.checkpoint: someone/vit is not here, and cannot be fetched"):
        make_model(of(Path("someone/vit")), 5, 3)


def test_another_number_of_classes_or_channels_is_refused(resnet: Path) -> None:
    with pytest.raises(UserError, match="tells 5 classes apart, the data has 7"):
        make_model(of(resnet), 7, 3)
    with pytest.raises(UserError, match="takes pictures of 3 channels; the data's have 1"):
        make_model(of(resnet), 5, 1)


def test_a_transformers_folder_for_another_library_is_refused_with_the_remedy(resnet: Path) -> None:
    with pytest.raises(UserError, match=r"has no classifier.json; a transformers model needs `source: transformers`"):
        make_model(ModelSettings(checkpoint=resnet), 5, 3)
    with pytest.raises(UserError, match=r"is no saved classifier: it has no classifier.json$"):
        make_model(ModelSettings(checkpoint=resnet.parent), 5, 3)


def test_the_weights_of_a_saved_classifier_are_checked_by_what_lies_beside_them(tmp_path: Path) -> None:
    settings = ModelSettings("timm", "test_resnet", "standard")
    save_classifier(make_model(settings, 4, 3), settings, tmp_path, "abcd", OWN, {})
    file = tmp_path / "model.safetensors"
    other = ModelSettings("timm", "test_vit", "standard", file)
    with pytest.raises(UserError, match=r"model.safetensors was made with architecture test_resnet; found test_vit"):
        make_model(other, 4, 3)
    assert checkpoint_normalise(ModelSettings("timm", "test_resnet", "standard", file), Normalise((0,), (1,))) == OWN


# Normalisation


def test_a_processor_s_mean_and_deviation_are_the_checkpoint_s(foreign: Path) -> None:
    assert checkpoint_normalise(of(foreign), OWN) == OWN
    (foreign / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.1]})
    )
    found = checkpoint_normalise(of(foreign / "model.safetensors", foreign), OWN)
    assert found.mean == pytest.approx((0.4, 0.5, 0.6))
    assert found.std == pytest.approx((0.2, 0.3, 0.1))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"image_mean": [0.48, 0.45, 0.40], "image_std": [0.22, 0.22, 0.23]},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 70.0, 80.0]},
        {"do_normalize": False},
    ],
)
def test_pixels_are_what_transformers_own_processor_makes_of_them(tmp_path: Path, given: dict[str, object]) -> None:
    processor = ViTImageProcessor(do_resize=False, **given)
    processor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    found = processor_normalise(json.loads(file.read_text()), OWN, file)
    pixels = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = processor(list(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found(pixels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_mean": [0.5], "image_std": [0.5, 0.5, 0.5]}, "does not fit to pictures of 3 channels: it has numbers"),
        ({"image_mean": ["a", "b", "c"], "image_std": 0.5}, "does not fit to pictures of 3 channels"),
        ({"image_mean": 0.5, "image_std": 0.0}, "both must be above 0"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        processor_normalise(given, OWN, Path("preprocessor_config.json"))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({0: "a", 1: "b"}, "ab"),
        ({0: "A", 1: "b"}, "ab"),
        ({0: "LABEL_0", 1: "LABEL_1"}, "ab"),
        ({0: "0", 1: "1"}, "ab"),
        ({0: "goldfish", 1: "tench"}, ("n01443537", "n01440764")),
        ({0: "a", 1: "b", 2: "c"}, "ab"),  # that the head does not fit is told elsewhere
    ],
)
def test_labels_that_are_the_datas_or_say_nothing_are_taken(labels: dict[int, str], classes: Sequence[str]) -> None:
    check_labels(labels, classes, Path("x"))


@pytest.mark.parametrize(
    ("labels", "classes", "first"),
    [
        ({0: "b", 1: "a"}, "ab", "'b' as its class 0, which is 'a' in the data"),
        ({0: "a", 1: "c"}, "ab", "'c' as its class 1, which is 'b' in the data"),
        ({0: "airplane", 1: "automobile"}, "01", "'airplane' as its class 0, which is '0' in the data"),
        ({0: "LABEL_1", 1: "LABEL_0"}, "ab", "'LABEL_1' as its class 0"),
        ({0: "1", 1: "0"}, "01", "'1' as its class 0, which is '0' in the data"),
    ],
)
def test_labels_of_other_classes_are_refused(labels: dict[int, str], classes: Sequence[str], first: str) -> None:
    with pytest.raises(UserError) as refused:
        check_labels(labels, classes, Path("x"))
    assert refused.value.problems[0].startswith(f"model.checkpoint: x knows {first}")


@pytest.mark.parametrize("change", ["less", "more", "other"])
def test_weights_alone_must_still_fit_to_the_last_key(resnet: Path, tmp_path: Path, change: str) -> None:
    weights = load_file(resnet / "model.safetensors")
    name = "classifier.1.bias"
    changed = {
        "less": {key: tensor for key, tensor in weights.items() if key != name},
        "more": {**weights, "more": torch.zeros(1)},
        "other": {**weights, name: torch.zeros(9)},
    }
    save_file(changed[change], tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"model.checkpoint: .*x.safetensors: does not fit the ResNetForImage"):
        make_model(of(tmp_path / "x.safetensors", resnet), 5, 3)
