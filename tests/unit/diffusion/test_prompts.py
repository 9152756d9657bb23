"""From a target to its prompts, its concept's own prompt and its anchors."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.diffusion.concepts import Target
from erase.diffusion.prompts import TargetPrompts, names, target_prompts
from erase.embedded import VOCABULARY
from erase.errors import UserError
from erase.vocabulary import Vocabulary


def plan(target: Target, vocabulary: Vocabulary | None = None, needs_anchor: bool = False) -> TargetPrompts:
    return target_prompts(target, "targets.0", vocabulary, needs_anchor)


def problem(target: Target, vocabulary: Vocabulary | None = None, needs_anchor: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        plan(target, vocabulary, needs_anchor)
    (message,) = caught.value.problems
    return message


def anchors(target: Target) -> tuple[str, ...] | None:
    return plan(target, needs_anchor=True).anchors


def test_without_prompts_a_target_has_the_vocabularys_captions() -> None:
    found = plan(Target("star"), VOCABULARY)
    assert found.prompts == tuple(caption.text for caption in VOCABULARY.captions_of("star"))
    assert len(found.prompts) == 6 * 5 + 6 + 5 + 1
    assert all(names(prompt, ["star"]) for prompt in found.prompts)
    assert found.concepts == found.prompts
    says = dict(zip(found.prompts, found.baselines, strict=True))
    assert says["a red star in dotted style"] == "a red shape in dotted style"
    assert says["a star"] == "a shape"
    assert found.anchors is None


def test_a_vocabulary_leaves_out_a_color_or_a_style_altogether() -> None:
    red, dotted = plan(Target("red"), VOCABULARY), plan(Target("dotted"), VOCABULARY)
    assert dict(zip(red.prompts, red.baselines, strict=True))["a red ring in flat style"] == "a ring in flat style"
    assert dict(zip(dotted.prompts, dotted.baselines, strict=True))["a red ring in dotted style"] == "a red ring"


def test_a_neutral_wording_of_the_users_own_replaces_the_concept_and_its_synonyms() -> None:
    target = Target("Van Gogh", synonyms=("Vincent",), templates=("a field by {}",), neutral="an artist")
    found = plan(target)
    assert found.concepts == found.prompts == ("a field by Van Gogh", "a field by Vincent")
    assert found.baselines == ("a field by an artist",) * 2


def test_an_empty_prompt_shows_no_concept() -> None:
    assert problem(Target("star", prompts=("a star", " "))).startswith("targets.0.prompts: found an empty prompt")


def test_a_neutral_wording_needs_the_concept_in_every_prompt() -> None:
    with pytest.raises(UserError, match=r"neutral.*'a night sky' does not name 'Van Gogh'.*concept_prompt"):
        plan(Target("Van Gogh", prompts=("a night sky",), neutral="an artist"))


def test_templates_are_filled_with_the_concept_and_each_synonym() -> None:
    target = Target("Van Gogh", synonyms=("Vincent", "$1"), templates=("a {} sky", "in the manner of {}"))
    assert plan(target).prompts == (
        "a Van Gogh sky",
        "a Vincent sky",
        "a $1 sky",
        "in the manner of Van Gogh",
        "in the manner of Vincent",
        "in the manner of $1",
    )
    assert set(plan(target).concepts) == {"Van Gogh"} and set(plan(target).baselines) == {""}


def test_a_list_a_file_and_templates_come_together_without_repeats(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,seed\na big star,1\na star,2\n", encoding="utf-8")
    target = Target("star", prompts=("a star", "my star"), prompts_file=file, templates=("a {}", "the {}"))
    assert plan(target, VOCABULARY).prompts == ("a star", "my star", "a big star", "the star")


def test_a_concept_prompt_of_the_users_own_wins() -> None:
    found = plan(Target("star", concept_prompt="five points"), VOCABULARY)
    assert set(found.concepts) == {"five points"} and set(found.baselines) == {""}


@pytest.mark.parametrize("template", ["a star", "{} and {}", ""])
def test_a_template_has_one_place_for_the_concept(template: str) -> None:
    found = problem(Target("star", templates=("a {}", template)))
    assert found == f"targets.0.templates: {template!r} must have {{}} once, where the concept goes"


def test_a_target_without_prompts_and_vocabulary_says_what_to_give() -> None:
    found = problem(Target("Van Gogh"))
    assert found.startswith("targets.0: 'Van Gogh' has no prompts")
    assert found.endswith("give targets.0.templates, .prompts or .prompts_file")


def test_a_concept_that_the_vocabulary_lacks_lists_the_known_ones() -> None:
    found = problem(Target("Star"), VOCABULARY)
    assert found.startswith("targets.0.concept: 'Star' is not a concept of this model. Known: object: circle, square")


def test_a_vocabulary_without_a_prompt_for_the_concept_alone_is_a_users_mistake() -> None:
    pairs = Vocabulary({"object": ("star",), "color": ("red",)}, ("a {color} {object}",))
    found = problem(Target("star"), pairs)
    assert found.startswith("targets.0")
    assert "no template names the domain 'object' alone" in found


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    found = problem(Target("star", prompts_file=tmp_path / "none.csv"))
    assert found == f"targets.0.prompts_file: {tmp_path / 'none.csv'}: there is no such file"


def test_an_anchor_replaces_the_concept_and_keeps_the_rest() -> None:
    target = Target("star", prompts=("a red star in dotted style", "Star, star; star-shaped"), anchor="circle")
    assert anchors(target) == ("a red circle in dotted style", "circle, circle; circle-shaped")


def test_an_anchor_replaces_synonyms_the_longest_first() -> None:
    target = Target(
        "truck", synonyms=("fire truck", "lorry"), prompts=("a FIRE TRUCK", "a lorry, a truck"), anchor="car"
    )
    assert anchors(target) == ("a car", "a car, a car")


def test_an_anchor_is_plain_text_and_the_concept_too() -> None:
    assert anchors(Target("C++ (new)", prompts=("C++ (new) code",), anchor=r"\1 \g<0>")) == (r"\1 \g<0> code",)


def test_an_anchor_prompt_stands_for_every_prompt() -> None:
    target = Target("star", prompts=("a star", "no such word"), anchor="circle", anchor_prompt="a plain wall")
    assert anchors(target) == ("a plain wall", "a plain wall")


def test_a_prompt_without_the_concept_cannot_be_redirected_by_an_anchor() -> None:
    target = Target("star", synonyms=("comet",), prompts=("a star", "a starfish"), anchor="circle")
    found = problem(target, needs_anchor=True)
    assert found.startswith("targets.0.anchor: 'a starfish' does not name 'star' or 'comet'")
    assert found.endswith("give targets.0.anchor_prompt instead")


def test_redirection_without_an_anchor_says_which_keys_give_one() -> None:
    found = problem(Target("star", prompts=("a star",)), needs_anchor=True)
    assert found == "targets.0.anchor: anchor_redirection needs it, or targets.0.anchor_prompt; found neither"


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("a red star", ["star"], True),
        ("A STAR!", ["star"], True),
        ("star-shaped", ["star"], True),
        ("start the starfish, costar_x", ["star"], False),
        ("a painting by van gogh", ["Van Gogh"], True),
        ("van der Gogh", ["Van Gogh"], False),
        ("50% off", ["50%"], True),
        ("a.b", ["a.b"], True),
        ("axb", ["a.b"], False),
        ("étoile", ["toile"], False),
        ("a circle", ["star", "circle"], True),
        ("a circle", [], False),
    ],
)
def test_a_word_is_found_whole_and_in_any_case(text: str, words: list[str], expected: bool) -> None:
    assert names(text, words) is expected


@pytest.mark.parametrize("wrong", [{"concept": ""}, {"concept": "star", "weight": 0.0}, {"concept": "star", "hue": 1}])
def test_a_target_is_checked_when_it_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"concept|weight|hue"):
        Target(**wrong)  # type: ignore[arg-type]
