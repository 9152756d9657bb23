"""Labels sorted into domains and mapped to concepts; every mistake named with what is near."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.errors import UserError
from erase.evaluation.metrics.labels import check_asked, check_domains, map_labels, near, read_labels, split_by_prefix
from tests.unit.evaluation.metrics.material import Drawn

LABELS = ("tench", "garbage truck", "dustcart", "minivan", "church")


def test_a_mapping_renames_its_labels_and_leaves_the_others_their_names() -> None:
    found = map_labels(LABELS, {"object": {"garbage truck": ["garbage truck", "dustcart"]}})["object"]
    assert found.names == ("tench", "garbage truck", "garbage truck", "minivan", "church")
    assert found.indices == (0, 1, 2, 3, 4)
    assert found.concepts == {"garbage truck"}


def test_labels_with_a_prefix_need_no_mapping() -> None:
    found = split_by_prefix(("object/star", "color/red", "object/none"), "label")
    assert found["object"].indices == (0, 2) and found["object"].names == ("star", "none")
    assert split_by_prefix(("cat", "dog"), "animal")["animal"].concepts == {"cat", "dog"}


def test_every_wrong_label_is_named_at_once_with_what_is_near() -> None:
    with pytest.raises(UserError) as caught:
        map_labels(LABELS, {"object": {"truck": ["garbage trucks"], "fish": ["Tench"], "car": []}})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "labels.object.truck",
        "labels.object.fish",
        "labels.object.car",
    ]
    assert "no label 'garbage trucks'; did you mean garbage truck" in caught.value.problems[0]
    assert "no label 'Tench'; did you mean tench" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "the mapping is empty"),
        ({"object": {"a": ["tench"], "b": ["tench"]}}, "'tench' stands for both 'a' and 'b'"),
        ({"object": {"church": ["tench"]}}, "a label has that very name"),
    ],
)
def test_an_ambiguous_mapping_is_refused(mapping: dict[str, dict[str, list[str]]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        map_labels(LABELS, mapping)


def test_near_words_are_found_by_letters_by_part_or_listed() -> None:
    assert near("Church", LABELS) == "did you mean church?"
    assert near("truck", ["big garbage truck of a town", "x"]) == "did you mean big garbage truck of a town?"
    assert near("zzz", [f"n{i}" for i in range(9)]) == "it has n0, n1, n2, n3, n4, ... (9)"


def test_a_concept_that_no_judge_knows_and_a_domain_that_none_asks_for_are_errors() -> None:
    asked = [Drawn("a", {"object": "church"}), Drawn("b", {"object": "chruch", "style": "baroque"})]
    check_asked(asked[:1], {"object": LABELS}, "m")
    with pytest.raises(UserError, match=r"m: prompts ask for the object 'chruch', .* did you mean church"):
        check_asked(asked, {"object": LABELS}, "m")
    check_domains(asked, ["object", "color"], "m")
    with pytest.raises(UserError, match="m: judges color, but the prompts ask for concepts in object, style"):
        check_domains(asked, ["color"], "m")


def test_a_mapping_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.yaml"
    file.write_text("object:\n  garbage truck: [garbage truck, dustcart]\n", encoding="utf-8")
    assert read_labels(file) == {"object": {"garbage truck": ["garbage truck", "dustcart"]}}
    file.write_text('{"object": {"a": "tench"}}', encoding="utf-8")
    with pytest.raises(UserError, match="object must map each concept to a list"):
        read_labels(file)
