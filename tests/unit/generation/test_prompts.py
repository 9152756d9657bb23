"""Prompt rows and the sets that are built of them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from erase.embedded import FULL_TEMPLATE, VOCABULARY
from erase.errors import UserError
from erase.generation.prompts import (
    PromptRow,
    check_set,
    concept_set,
    evaluation_seed,
    fill,
    gives_seeds,
    hash_rows,
    idle_seed,
    vocabulary_set,
    with_article,
)
from erase.randomness import derive
from erase.vocabulary import Vocabulary


def test_image_0_has_the_rows_seed_and_the_others_have_their_own() -> None:
    row = PromptRow("7", "a cat", 42)
    seeds = [row.image_seed(k) for k in range(100)]
    assert seeds[0] == 42
    assert seeds[3] == derive(42, "image", 3) % 10**9
    assert len(set(seeds)) == 100


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"case_number": "../up"}, "names files"),
        ({"case_number": ""}, "names files"),
        ({"case_number": ".hidden"}, "names files"),
        ({"case_number": "a/b"}, "names files"),
        ({"case_number": "a" * 101}, "100 at most"),
        ({"case_number": "1\n"}, "names files"),
        ({"prompt": " \n"}, "has no prompt"),
        ({"seed": -1}, "seed -1: must be from 0"),
        ({"seed": 2**63}, "must be from 0 to 2^63 - 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale nan"),
        ({"guidance_scale": -1.0}, "0 or more"),
        ({"width": 500}, "width 500: must be a positive multiple of 8"),
        ({"height": 0}, "height 0: must be a positive multiple of 8"),
        ({"steps": 0}, "steps 0: must be from 1 to 1000"),
        ({"steps": 1001}, "steps 1001: must be from 1 to 1000"),
        ({"group": " target"}, "no space at its ends"),
        ({"concepts": {"object": ""}}, "neither a domain nor a concept is empty"),
        ({"concepts": {"object ": "star"}}, "no space at its ends"),
    ],
)
def test_a_value_that_no_image_could_have_is_refused(wrong: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"case_number": "0", "prompt": "a cat", "seed": 0}
    PromptRow(**good)
    with pytest.raises(ValueError) as caught:
        PromptRow(**good | wrong)
    assert says in str(caught.value)


def test_a_set_is_not_empty_and_no_two_rows_share_their_files_names() -> None:
    a, b, same = PromptRow("a", "x", 0), PromptRow("b", "x", 0), PromptRow("A", "y", 1)
    check_set([a, b], "prompts")
    with pytest.raises(UserError, match="holds no prompts"):
        check_set([], "prompts")
    with pytest.raises(UserError, match="2 rows share a case_number, such as a, A"):
        check_set([a, b, same], "prompts")


def test_the_hash_is_of_every_value_and_of_the_order() -> None:
    rows = [PromptRow("0", "a cat", 1), PromptRow("1", "a dog", 2, concepts={"object": "dog"})]
    hashes = {hash_rows(rows), hash_rows(rows[::-1]), hash_rows(rows[:1])}
    changes: dict[str, Any] = {"case_number": "2", "prompt": "a bird", "seed": 3, "guidance_scale": 1.0, "width": 8}
    changes |= {"height": 8, "steps": 3, "group": "x", "concepts": {"object": "cat"}}
    assert set(changes) == {one.name for one in fields(PromptRow)}
    for name, value in changes.items():
        hashes.add(hash_rows([replace(rows[0], **{name: value}), rows[1]]))
    assert len(hashes) == 3 + len(changes)
    assert hash_rows(list(rows)) == hash_rows(rows)


def test_the_vocabularys_set_is_every_full_caption_with_the_exams_seeds() -> None:
    rows = vocabulary_set(VOCABULARY, FULL_TEMPLATE, seed=5, images=2)
    captions = VOCABULARY.captions([FULL_TEMPLATE]) * 2
    assert [row.prompt for row in rows] == [caption.text for caption in captions]
    assert [row.concepts for row in rows] == [caption.concepts for caption in captions]
    assert [row.seed for row in rows] == [derive(5, "evaluation", i) % 10**9 for i in range(480)]
    assert (rows[0].case_number, rows[479].case_number) == ("00000", "00479")
    assert len({row.seed for row in rows}) == 480


def test_a_seed_counts_where_the_rows_have_none_of_their_own() -> None:
    derived = vocabulary_set(VOCABULARY, FULL_TEMPLATE, seed=5)
    own = [PromptRow("0", "a red star", seed=4)]
    assert gives_seeds(5, derived) and not gives_seeds(0, derived)
    assert list(idle_seed(5, derived)) == list(idle_seed(0, own)) == []
    (found,) = idle_seed(7, own)
    assert found.startswith("seed: found 7; ") and "images_per_prompt" in found


def test_another_vocabulary_fills_its_own_template() -> None:
    rows = vocabulary_set(Vocabulary({"animal": ("cat", "dog")}, ("a {animal}",)), "a {animal}", seed=0)
    assert [(row.prompt, dict(row.concepts)) for row in rows] == [
        ("a cat", {"animal": "cat"}),
        ("a dog", {"animal": "dog"}),
    ]


def test_a_concepts_set_by_hand() -> None:
    rows = concept_set(
        "church",
        ["chapel"],
        ["castle"],
        ["apple"],
        ["a photo of {a}", "{} at night"],
        seed=3,
        paraphrases=["a house of prayer"],
        domain="object",
    )
    assert [(row.prompt, row.group, row.concepts["object"]) for row in rows] == [
        ("a photo of a church", "target", "church"),
        ("church at night", "target", "church"),
        ("a photo of a chapel", "synonym", "church"),
        ("chapel at night", "synonym", "church"),
        ("a photo of a castle", "neighbour", "castle"),
        ("castle at night", "neighbour", "castle"),
        ("a photo of an apple", "other", "apple"),
        ("apple at night", "other", "apple"),
        ("a house of prayer", "synonym", "church"),
    ]
    assert [row.seed for row in rows] == [evaluation_seed(3, i) for i in range(9)]


@pytest.mark.parametrize(
    ("words", "templates", "says"),
    [
        (("church", ["chapel"], ["Church"], []), ["{}"], "church given twice"),
        (("church", [], [], []), ["no place"], "each has"),
        (("church", [], [], []), ["{} and {a}"], "each has"),
        (("church", [], [], []), [], "found none"),
    ],
)
def test_a_set_that_would_judge_nothing_is_refused(words: Any, templates: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        concept_set(*words, templates=templates, seed=0)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("church", "a church"),
        ("apple", "an apple"),
        ("English springer", "an English springer"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("European robin", "a European robin"),
        ("hourglass", "an hourglass"),
        ("house", "a house"),
    ],
)
def test_the_article_follows_the_sound(word: str, expected: str) -> None:
    assert with_article(word) == expected
    assert fill("{a}", word) == expected
    assert fill("{}", word) == word
