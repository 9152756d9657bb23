"""Concepts, domains and captions."""

from __future__ import annotations

from collections import Counter

import pytest

from erase.vocabulary import Caption, UnknownConceptError, Vocabulary, fields

DOMAINS = {"object": ("star", "circle"), "color": ("red", "blue"), "style": ("dotted",)}
TEMPLATES = (
    "a {color} {object} in {style} style",
    "a {object}",
    "the {object}, alone",
    "something {color}",
    "a picture",
)


def shapes() -> Vocabulary:
    return Vocabulary(DOMAINS, TEMPLATES)


def test_captions_are_every_template_filled_in_every_way() -> None:
    captions = shapes().captions()
    assert len(captions) == 2 * 2 * 1 + 2 + 2 + 2 + 1
    assert captions[0] == Caption("a red star in dotted style", {"object": "star", "color": "red", "style": "dotted"})
    assert captions[-1] == Caption("a picture", {})
    assert max(Counter(caption.text for caption in captions).values()) == 1


def test_captions_come_in_the_same_order_each_time() -> None:
    assert [c.text for c in shapes().captions()] == [c.text for c in shapes().captions()]
    assert [c.text for c in shapes().captions(["a {object}"])] == ["a star", "a circle"]


def test_a_template_given_twice_makes_no_repeats() -> None:
    assert [c.text for c in shapes().captions(["a {color}", "a {color}"])] == ["a red", "a blue"]


def test_captions_name_the_concepts_that_they_contain() -> None:
    for caption in shapes().captions():
        assert all(concept in caption.text for concept in caption.concepts.values())
        absent = {word for words in DOMAINS.values() for word in words} - set(caption.concepts.values())
        assert not any(word in caption.text for word in absent)


def test_captions_of_a_concept_and_without_it_and_without_any_make_the_whole() -> None:
    vocabulary = shapes()
    named = {c.text for c in vocabulary.captions_of("star")}
    spared = {c.text for c in vocabulary.captions_without(["star"])}
    assert named == {"a red star in dotted style", "a blue star in dotted style", "a star", "the star, alone"}
    assert not named & spared
    assert {c.text for c in vocabulary.captions()} - named - spared == {"a picture"}


def test_captions_without_several_concepts_name_none_of_them() -> None:
    kept = [c.text for c in shapes().captions_without(["star", "red"])]
    assert kept == ["a blue circle in dotted style", "a circle", "the circle, alone", "something blue"]
    assert len(shapes().captions_without([])) == len(shapes().captions()) - 1


def test_the_concept_prompt_is_the_shortest_that_names_it_alone() -> None:
    assert shapes().concept_prompt("star") == "a star"
    assert shapes().concept_prompt("blue") == "something blue"


def test_a_domain_that_no_template_names_alone_has_no_concept_prompt() -> None:
    with pytest.raises(ValueError, match=r"no template names the domain 'style' alone; add one such as 'a \{style\}'"):
        shapes().concept_prompt("dotted")


def test_domain_of_finds_the_domain() -> None:
    assert [shapes().domain_of(word) for word in ("circle", "red", "dotted")] == ["object", "color", "style"]


@pytest.mark.parametrize("word", ["moon", "", "Star", "object"])
def test_an_unknown_concept_lists_the_known_ones(word: str) -> None:
    with pytest.raises(UnknownConceptError, match="Known: object: star, circle; color: red, blue; style: dotted"):
        shapes().captions_of(word)


def test_a_concept_in_two_domains_is_refused() -> None:
    with pytest.raises(ValueError, match="found twice: orange"):
        Vocabulary({"fruit": ("orange", "apple"), "color": ("red", "orange")}, ())


def test_a_template_with_an_unknown_domain_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'a \{size\} \{object\}' names the domain 'size'; known: object, color, style"
    ):
        Vocabulary(DOMAINS, ("a {object}", "a {size} {object}"))


@pytest.mark.parametrize("template", ["a {}", "a {", "a }", "a {0}"])
def test_a_malformed_template_is_refused_when_the_vocabulary_is_made(template: str) -> None:
    with pytest.raises(ValueError, match=r"a [{}]|brace|format"):
        Vocabulary(DOMAINS, (template,))


def test_fields_are_the_names_in_braces() -> None:
    assert fields("a {color} {object} and a {color} frame") == {"color", "object"}
    assert fields("a {{literal}} brace") == fields("nothing") == set()
