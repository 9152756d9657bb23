"""Zero-shot concepts by the embedded CLIP model: right on drawings, softmax by hand, ensembles of templates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.config import build
from erase.errors import UserError
from erase.evaluation.metrics.zero_shot import ZeroShot
from tests.unit.evaluation.metrics.material import COLORS, OBJECTS, Drawn, drawings

SETTINGS: dict[str, Any] = {
    "model": "shapes",
    "concepts": {"object": OBJECTS, "color": COLORS},
    "domain_templates": {"object": ("a {concept}",), "color": ("a {concept} shape",)},
}


def test_drawings_are_seen_as_what_they_are() -> None:
    images, asked = drawings(48)
    found = ZeroShot(**SETTINGS)(images, asked)
    for domain in ("object", "color"):
        right = [
            seen == picture.concepts[domain] for seen, picture in zip(found[f"zero_shot/{domain}"], asked, strict=True)
        ]
        assert sum(right) / len(right) > 0.8, domain


def test_the_answer_and_its_confidence_are_those_of_a_softmax_over_the_concepts() -> None:
    images, asked = drawings(5)
    metric = ZeroShot(**SETTINGS)
    found = metric(images, asked)
    words = metric.clip.read([f"a {concept}" for concept in OBJECTS])
    shares = (metric.clip.logit_scale * metric.clip.embed(images) @ words.T).softmax(1)
    assert found["zero_shot/object"] == [OBJECTS[index] for index in shares.argmax(1).tolist()]
    assert found["zero_shot_confidence/object"] == pytest.approx(shares.max(1).values.tolist(), abs=1e-5)


def test_several_templates_are_averaged_and_scaled_back() -> None:
    templates = ("a {concept}", "a red {concept}")
    metric = ZeroShot(model="shapes", concepts={"object": OBJECTS}, templates=templates)
    assert metric.prompts("object", "star") == ["a star", "a red star"]
    mean = metric.clip.read(["a star", "a red star"]).mean(0)
    assert torch.allclose(metric.directions["object"][OBJECTS.index("star")], mean / mean.norm())
    assert metric.directions["object"].norm(dim=1).tolist() == pytest.approx([1.0] * len(OBJECTS))


def test_a_concept_that_it_does_not_know_is_refused_with_what_is_near() -> None:
    images, _ = drawings(1)
    with pytest.raises(UserError, match=r"zero_shot: prompts ask for the object 'Stars', .* did you mean star"):
        ZeroShot(**SETTINGS)(images, [Drawn("stars", {"object": "Stars"})])
    assert ZeroShot(**SETTINGS)(images, [Drawn("x", {"place": "Rome"})])  # another domain is none of its business


def test_other_prompts_make_another_identity() -> None:
    one, other = ZeroShot(**SETTINGS), ZeroShot(**SETTINGS | {"domain_templates": {}})
    assert one.identity()["prompts_sha256"] != other.identity()["prompts_sha256"]
    assert one.identity()["concepts"]["color"] == list(COLORS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"concepts": {}}, "must name a domain"),
        ({"concepts": {"object": ["star"]}}, "two concepts at least"),
        ({"concepts": {"object": ["star", "star"]}}, "each once"),
        ({"concepts": {"object": ["a", "b"]}, "templates": ["a photo"]}, r"'a photo' must hold \{concept\}"),
        ({"concepts": {"object": ["a", "b"]}, "templates": []}, "an empty list"),
        ({"concepts": {"object": ["a", "b"]}, "domain_templates": {"color": ["{concept}"]}}, "no such domain"),
    ],
)
def test_incomplete_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(ZeroShot, wrong)
