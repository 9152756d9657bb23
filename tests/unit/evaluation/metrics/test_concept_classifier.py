"""Classifiers as metrics: concepts, confidence and ranks from real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights, resnet50

from erase.config import build
from erase.errors import UserError
from erase.evaluation.metrics.concept_classifier import ConceptClassifier, ImagenetClassifier, judge
from erase.evaluation.metrics.imagenet import IMAGENETTE, load_resnet50
from erase.evaluation.metrics.labels import Domain, map_labels
from tests.unit.evaluation.metrics.material import Drawn, drawings
from tests.unit.evaluation.tiny_judges import save_classifier

ANIMALS = ("cat", "dog", "tiger", "wolf")


def test_the_embedded_classifier_sees_what_was_drawn() -> None:
    images, asked = drawings(48)
    found = ConceptClassifier()(images, asked)
    assert set(found) == {
        f"{what}/{d}" for what in ("seen", "confidence", "rank") for d in ("object", "color", "style")
    }
    for domain in ("object", "color", "style"):
        right = [seen == p.concepts[domain] for seen, p in zip(found[f"seen/{domain}"], asked, strict=True)]
        assert sum(right) >= 46, domain
        assert [rank == 1 for rank in found[f"rank/{domain}"]] == right
        assert all(0 <= share <= 1 for share in found[f"confidence/{domain}"])


def test_answers_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, 3.0], [0.0, 5.0, 1.0, 0.0]])
    domains = map_labels(ANIMALS, {"animal": {"feline": ["cat", "tiger"], "dog": ["dog"]}})
    found = judge(logits, [Drawn("", {"animal": "feline"}), Drawn("", {})], domains)
    assert found["seen/animal"] == ["wolf", "dog"]  # wolf is no concept: the label itself
    assert found["rank/animal"] == [2, None]
    assert found["confidence/animal"] == pytest.approx(logits.softmax(1).max(1).values.tolist())


def test_a_softmax_is_taken_within_each_domain() -> None:
    domains = {"a": Domain((0, 2), ("x", "y"), frozenset("xy")), "b": Domain((1,), ("z",), frozenset("z"))}
    found = judge(torch.tensor([[0.0, 50.0, 1.0]]), [Drawn("", {"a": "x"})], domains)
    assert (found["seen/a"], found["seen/b"], found["rank/a"]) == (["y"], ["z"], [2])
    assert found["confidence/b"] == [1.0]
    assert found["confidence/a"] == pytest.approx([torch.tensor(1.0).sigmoid().item()])


def test_a_mapping_a_file_or_a_domain_says_what_labels_stand_for(tmp_path: Path) -> None:
    model, file = str(save_classifier(tmp_path / "model", ANIMALS)), tmp_path / "labels.yaml"
    mapping = {"kind": {"feline": ("cat", "tiger"), "canine": ("dog", "wolf")}}
    file.write_text("kind: {feline: [cat, tiger], canine: [dog, wolf]}", encoding="utf-8")
    images, _ = drawings(4)
    asked = [Drawn("a cat", {"kind": "feline", "animal": "cat"})] * 4
    by_name = ConceptClassifier(model=model, domain="animal")(images, asked)
    for metric in (ConceptClassifier(model=model, labels=mapping), ConceptClassifier(model=model, labels_file=file)):
        found = metric(images, asked)
        of = {"cat": "feline", "tiger": "feline", "dog": "canine", "wolf": "canine"}
        assert found["seen/kind"] == [of[label] for label in by_name["seen/animal"]]
        assert found["confidence/kind"] == by_name["confidence/animal"]
    with pytest.raises(UserError, match="give one of domain, labels and labels_file"):
        build(ConceptClassifier, {"domain": "animal", "labels_file": "x.yaml"})


def test_an_unknown_label_or_concept_is_an_error_that_names_what_is_near(tmp_path: Path) -> None:
    model, (images, _) = str(save_classifier(tmp_path, ANIMALS)), drawings(1)
    with pytest.raises(UserError, match="no label 'Tigr'; did you mean tiger"):
        _ = ConceptClassifier(model=model, labels={"kind": {"feline": ("Tigr",)}}).domains
    with pytest.raises(
        UserError, match=r"concept_classifier: prompts ask for the animal 'wolff', .* did you mean wolf"
    ):
        ConceptClassifier(model=model, domain="animal")(images, [Drawn("", {"animal": "wolff"})])


def test_the_identity_knows_the_weights_and_what_labels_stand_for(tmp_path: Path) -> None:
    model, other = str(save_classifier(tmp_path / "a", ANIMALS)), str(save_classifier(tmp_path / "b", ANIMALS, seed=1))
    one = ConceptClassifier(model=model, domain="animal").identity()
    assert one == ConceptClassifier(model=model, domain="animal").identity()
    assert one["library"] == "transformers" and one["rule"] == "the likeliest label"
    assert one["weights_sha256"] != ConceptClassifier(model=other, domain="animal").identity()["weights_sha256"]
    mapped = ConceptClassifier(model=model, labels={"animal": {"feline": ("cat",)}}).identity()
    assert one["labels_sha256"] != mapped["labels_sha256"]


# ImageNet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("resnet") / "resnet50.safetensors"
    save_file(resnet50().state_dict(), file)
    return str(file)


def test_resnet50_answers_as_torchvisions_does(weights: str) -> None:
    images, asked = drawings(3)
    metric = ImagenetClassifier(model=weights)
    judge_, transform = resnet50(), ResNet50_Weights.IMAGENET1K_V2.transforms()
    judge_.load_state_dict(load_resnet50(weights).model.state_dict())
    with torch.no_grad():
        shares = judge_.eval()(torch.stack([transform(image) for image in images])).softmax(1)
    best = [ResNet50_Weights.IMAGENET1K_V2.meta["categories"][index] for index in shares.argmax(1).tolist()]
    found = metric(images, asked)
    assert found["seen/class"] == best
    assert found["confidence/class"] == pytest.approx(shares.max(1).values.tolist(), abs=1e-5)
    assert found["rank/class"] == [None] * 3  # the drawings' prompts ask for no class


def test_imagenettes_ten_classes_are_labels_of_torchvision(weights: str) -> None:
    metric = ImagenetClassifier(model=weights)
    assert metric.domains["class"].concepts == set(IMAGENETTE.values())
    assert {metric.classifier.labels.index(name): name for name in IMAGENETTE.values()} == IMAGENETTE
    assert metric.identity()["library"] == "torchvision"
    images, _ = drawings(1)
    assert metric(images, [Drawn("", {"class": "church"})])["rank/class"][0] > 0


def test_the_hubs_weights_have_torchvisions_names_and_shapes() -> None:
    timm = pytest.importorskip("timm")
    shapes: list[dict[str, Any]] = [
        {name: tensor.shape for name, tensor in model.state_dict().items()}
        for model in (timm.create_model("resnet50"), resnet50())
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet50-11ad3fa6.pth", r"is a pickle, which can run code; torchvision's .pth is turned into one by"),
        ("nowhere.safetensors", "cannot be read"),
        ("resnet", "no .safetensors file and no Hub id"),
        ("owner/name", "cannot be read"),  # there is no network in a test
    ],
)
def test_weights_that_cannot_be_had_are_refused_with_the_remedy(model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = ImagenetClassifier(model=model).classifier


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="holds other weights than are needed"):
        _ = ImagenetClassifier(model=str(tmp_path / "x.safetensors")).classifier
