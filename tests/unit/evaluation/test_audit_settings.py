"""An audit's settings: what they come to, and what is refused before anything is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase import embedded
from erase.config import build
from erase.errors import UserError, renamed
from erase.evaluation.audit_settings import (
    Audit,
    check_concepts,
    check_folder,
    check_metrics,
    generations_of,
    keys_of,
    metrics_of,
    output_of,
    with_target,
)
from erase.evaluation.metrics import KID, ClipDistance, ConceptClassifier, Lpips
from erase.generation.lora import NAME as LORA_NAME
from erase.generation.prompts import PromptRow

ROWS = [
    PromptRow("0", "a star", 1, concepts={"object": "star"}),
    PromptRow("1", "a ring", 2, concepts={"object": "ring"}),
    PromptRow("2", "a red shape", 3, concepts={"color": "red"}),
    PromptRow("3", "anything", 4),
]


def audit(**given: Any) -> Audit:
    return Audit(**({"erased": "runs/star", "target": "star"} | given))


def test_shapes_world_brings_its_prompts_sampling_and_judges() -> None:
    made = generations_of(audit(), Path("out"))
    for generation in made.values():
        assert (generation.prompts, generation.num_inference_steps, generation.guidance_scale) == ("shapes", 15, 4.0)
    assert [generation.model for generation in made.values()] == ["shapes", "runs/star"]
    assert [metric.name for metric in metrics_of(audit())][:2] == ["concept_classifier", "clip_score"]


def test_both_sides_are_sampled_alike_but_for_the_model(tmp_path: Path) -> None:
    made = generations_of(audit(num_inference_steps=7, images_per_prompt=3, seed=5, dtype="bfloat16"), tmp_path)
    base, erased = (vars(made[side]) for side in ("base", "erased"))
    assert {key for key in base if base[key] != erased[key]} == {"model", "output_dir"}
    assert (base["num_inference_steps"], base["images_per_prompt"], base["seed"]) == (7, 3, 5)


def test_weights_go_onto_the_base_and_a_whole_model_does_not(tmp_path: Path) -> None:
    (tmp_path / LORA_NAME).write_bytes(b"")
    made = generations_of(audit(erased=str(tmp_path), base="shapes"), tmp_path / "out")
    assert (made["erased"].model, made["erased"].lora) == ("shapes", tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    made = generations_of(audit(erased=str(tmp_path), base="shapes"), tmp_path / "out")
    assert (made["erased"].model, made["erased"].lora) == (str(tmp_path), None)
    with pytest.raises(UserError, match="erased_revision"):
        generations_of(audit(erased=str(_file(tmp_path / "x.safetensors")), erased_revision="main"), tmp_path)


def _file(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def test_an_audit_lies_beside_what_it_audits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "star").mkdir()
    assert output_of(audit(erased=str(tmp_path / "star"))) == tmp_path / "star-audit"
    monkeypatch.chdir(tmp_path / "star")
    assert output_of(audit(erased=".")) == tmp_path / "star-audit"
    with pytest.raises(UserError, match="output_dir: must be given"):
        output_of(audit(erased="owner/name"))


def test_prompts_of_ones_own_need_metrics_and_a_foreign_base_needs_prompts() -> None:
    with pytest.raises(UserError, match="metrics: must be given"):
        metrics_of(audit(base="owner/name", prompts="my.csv"))
    with pytest.raises(UserError, match="prompts: must be given for the base owner/name"):
        generations_of(audit(base="owner/name"), Path("out"))


def test_the_targets_domain_is_the_one_its_prompts_name() -> None:
    assert check_concepts(audit(), ROWS) == "object"
    assert check_concepts(audit(target="red"), ROWS) == "color"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "stars"}, "target: no prompt asks for 'stars'; such as star"),
        ({"neighbours": ("moon",)}, "neighbours: no prompt asks for 'moon'"),
        ({"neighbours": ("star",)}, "neighbours: 'star' is erased itself"),
        ({"also_erased": ("ring",), "neighbours": ("ring",)}, "neighbours: 'ring' is erased itself"),
    ],
)
def test_concepts_that_cannot_be_looked_at_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_concepts(audit(**given), ROWS)


def test_pictures_of_what_is_erased_with_the_target_are_none_that_are_kept() -> None:
    needed = KID().fewest()
    concepts = ["star", "ring", *["moon"] * (needed - 1)]
    rows = [PromptRow(str(n), "a", n, concepts={"object": concept}) for n, concept in enumerate(concepts)]
    assert check_metrics(audit(), [KID()], rows, "object", "none") == []
    (problem,) = check_metrics(audit(also_erased=("ring",)), [KID()], rows, "object", "none")
    assert problem == f"metrics: kid needs {needed} kept pictures; these prompts make {needed - 1}"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (ClipDistance, {"model": "NoSuchModel"}, "NoSuchModel"),
        (KID, {"features": {"name": "clip", "model": "NoSuchModel"}}, "NoSuchModel"),
        (Lpips, {"backbone": "there/is/none.safetensors"}, "lpips.backbone: there/is/none.safetensors cannot be read"),
        (KID, {"features": {"name": "inception", "weights": "none.safetensors"}}, "features.weights: none.safetensors"),
    ],
)
def test_a_measure_of_pairs_or_sets_that_cannot_be_had_is_refused_early(
    kind: type[Any], given: dict[str, Any], message: str
) -> None:
    rows = [PromptRow(str(n), "a", n, concepts={"object": "star" if n else "ring"}) for n in range(2)]
    problems = check_metrics(audit(target="ring"), [build(kind, given)], rows * 50, "object", "none")
    assert [message in problem for problem in problems] == [True]


def test_one_name_in_two_domains_is_refused() -> None:
    rows = [*ROWS, PromptRow("4", "an orange", 5, concepts={"object": "red"})]
    with pytest.raises(UserError, match="'red' is a concept of color and of object"):
        check_concepts(audit(), rows)


def test_prompts_without_concepts_may_all_ask_for_the_target() -> None:
    rows = with_target(audit(target="nudity", all_target=True), ROWS[2:])
    assert [dict(row.concepts) for row in rows] == [{"color": "red"}, {"concept": "nudity"}]
    assert check_concepts(audit(target="nudity"), rows) == "concept"
    assert with_target(audit(), ROWS) is ROWS
    with pytest.raises(UserError, match="all_target"):
        check_concepts(audit(), ROWS[3:])


def test_the_audit_of_another_target_is_not_replaced(tmp_path: Path) -> None:
    check_folder(audit(), tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"target": "ring"}))
    with pytest.raises(UserError, match="holds the audit of 'ring'"):
        check_folder(audit(), tmp_path)
    check_folder(audit(target="ring"), tmp_path)
    check_folder(audit(overwrite=True), tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        check_folder(audit(), tmp_path)


def test_the_embedded_words_are_all_judged() -> None:
    (judge, *_) = metrics_of(audit())
    assert isinstance(judge, ConceptClassifier) and set(embedded.VOCABULARY.domains) <= set(judge.domains)


def test_what_a_side_is_refused_for_bears_the_audits_own_keys(tmp_path: Path) -> None:
    own = keys_of(audit(base_images=tmp_path), "base")
    with pytest.raises(UserError) as caught, renamed(own):
        raise UserError("model: a: b", "output_dir: full", "prompts: none")
    assert caught.value.problems == ("base: a: b", "base_images: full", "prompts: none")
    assert keys_of(audit(), "erased") == {
        "model": "erased",
        "lora": "erased",
        "revision": "erased_revision",
        "output_dir": "output_dir",
    }


def test_a_base_of_weights_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^base: .* holds weights and no whole model"):
        generations_of(audit(base=str(_file(tmp_path / "x.safetensors")), prompts="shapes"), tmp_path)
