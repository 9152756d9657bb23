"""A real image classifier as a judge: one softmax for each domain of its labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from erase.embedded import NONE, VOCABULARY
from erase.errors import UserError
from erase.evaluation.metrics.classifier_model import ClassifierModel
from erase.shapes.drawing import draw
from tests.unit.evaluation.tiny_judges import save_classifier

LABELS = ("object/star", "color/red", "object/none", "color/blue", "object/circle", "color/none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"), LABELS)


def pictures(count: int = 6) -> list[Image.Image]:
    objects, colors = VOCABULARY.domains["object"], VOCABULARY.domains["color"]
    rng = np.random.default_rng(0)
    return [Image.fromarray(draw(objects[i % 8], colors[i % 6], "flat", rng)) for i in range(count)]


def test_labels_are_sorted_into_their_domains(folder: Path) -> None:
    assert ClassifierModel(folder).domains == {
        "object": {0: "star", 2: "none", 4: "circle"},
        "color": {1: "red", 3: "blue", 5: "none"},
    }


def test_each_picture_has_the_likeliest_label_of_each_domain(folder: Path) -> None:
    classifier, shown = ClassifierModel(folder), pictures()
    found = classifier(shown)
    with torch.no_grad():
        logits = classifier.model(**classifier.processor(shown, return_tensors="pt")).logits
    for labels, row in zip(found, logits, strict=True):
        assert labels == {
            "object": ("star", "none", "circle")[int(row[[0, 2, 4]].argmax())],
            "color": ("red", "blue", "none")[int(row[[1, 3, 5]].argmax())],
        }


@pytest.mark.parametrize("index", range(len(LABELS)))
def test_a_label_that_is_pushed_up_wins_its_own_domain_alone(folder: Path, index: int) -> None:
    classifier, shown = ClassifierModel(folder), pictures(2)
    before = classifier(shown)
    with torch.no_grad():
        classifier.model.classifier[-1].bias[index] += 100
    domain, label = LABELS[index].split("/")
    for then, now in zip(before, classifier(shown), strict=True):
        assert now == {**then, domain: label}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_does_not_change_a_label(folder: Path, batch_size: int) -> None:
    classifier, shown = ClassifierModel(folder), pictures()
    assert classifier(shown, batch_size=batch_size) == classifier(shown)
    assert classifier([]) == []


def test_labels_without_a_domain_share_one(tmp_path: Path) -> None:
    classifier = ClassifierModel(save_classifier(tmp_path, ("cat", "dog")))
    assert classifier.domains == {"label": {0: "cat", 1: "dog"}}
    assert classifier(pictures(1))[0]["label"] in ("cat", "dog")


def test_a_label_may_hold_a_slash_before_its_last_part(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ("art/style/van gogh",))
    assert ClassifierModel(folder).domains == {"art/style": {0: "van gogh"}}


def test_more_than_ten_labels_keep_their_numbers(tmp_path: Path) -> None:
    domains = ClassifierModel(save_classifier(tmp_path)).domains
    assert {domain: list(labels.values()) for domain, labels in domains.items()} == {
        domain: [*concepts, NONE] for domain, concepts in VOCABULARY.domains.items()
    }
    assert [index for labels in domains.values() for index in labels] == list(range(22))


def test_weights_in_half_precision_judge_in_float32(folder: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(folder, tmp_path / "half"))
    AutoModelForImageClassification.from_pretrained(folder).half().save_pretrained(half)
    assert {p.dtype for p in ClassifierModel(half).model.parameters()} == {torch.float32}
    assert len(ClassifierModel(half)(pictures())) == 6


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_that_lacks_a_part_is_refused_by_name(folder: Path, tmp_path: Path, lost: str) -> None:
    partial = Path(shutil.copytree(folder, tmp_path / "partial"))
    (partial / lost).unlink()
    with pytest.raises(UserError, match=r"^classifier: ") as caught:
        ClassifierModel(partial)
    assert str(partial) in str(caught.value)


def test_a_pickle_is_not_read(folder: Path, tmp_path: Path) -> None:
    pickled = Path(shutil.copytree(folder, tmp_path / "pickled"))
    torch.save(ClassifierModel(folder).model.state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"^classifier: "):
        ClassifierModel(pickled)


def test_damaged_weights_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"^classifier: "):
        ClassifierModel(damaged)


def test_weights_that_lack_a_tensor_are_refused_and_not_filled_with_noise(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    partial = Path(shutil.copytree(folder, tmp_path / "partial"))
    weights = load_file(partial / "model.safetensors")
    weights.pop("classifier.1.weight")
    save_file(weights, partial / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"is damaged: its weights lack classifier.1.weight"):
        ClassifierModel(partial)


def test_the_embedded_classifier_is_one_word_and_knows_its_identity() -> None:
    classifier = ClassifierModel("shapes")
    assert [len(classifier.domains[domain]) for domain in ("object", "color", "style")] == [9, 7, 6]
    identity = classifier.identity()
    assert (identity["model"], identity["library"], identity["revision"]) == ("shapes", "transformers", None)
    assert identity["preprocessing"]["size"] == {"height": 64, "width": 64}
    json.dumps(identity)
