"""From the settings to a plan: prompts to keep, vocabularies, and all mistakes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erase.diffusion.concepts import LatentSettings, Retain, Target
from erase.diffusion.losses import (
    AnchorRedirection,
    Denoising,
    ForgetLoss,
    GradientAscent,
    NegativeGuidance,
    TeacherDistillation,
)
from erase.diffusion.prepare import keyed_prompts
from erase.diffusion.prompts import names, retain_prompts
from erase.diffusion.settings import ErasureSettings, Plan, make_plan, read_vocabulary
from erase.embedded import VOCABULARY
from erase.errors import UserError

STAR = (Target("star"),)


def plan(**given: Any) -> Plan:
    return make_plan(ErasureSettings(**({"targets": STAR} | given)))


def problems(**given: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        plan(**given)
    return caught.value.problems


def refused(retain: Retain, targets: tuple[Target, ...] = STAR) -> str:
    with pytest.raises(UserError) as caught:
        retain_prompts(retain, targets, VOCABULARY)
    return str(caught.value)


def csv(folder: Path, text: str) -> Path:
    file = folder / "keep.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_by_default_the_rest_of_the_vocabulary_is_kept() -> None:
    kept = plan().retain
    assert kept == tuple(caption.text for caption in VOCABULARY.captions_without(["star"]))
    assert "a red circle in dotted style" in kept and "a red shape" in kept
    assert not any(names(prompt, ["star"]) for prompt in kept)


def test_the_rest_of_the_vocabulary_is_without_every_target_and_synonym() -> None:
    kept = plan(targets=(Target("star", synonyms=("circle",)), Target("red"))).retain
    assert kept == tuple(caption.text for caption in VOCABULARY.captions_without(["star", "circle", "red"]))
    assert not any(names(prompt, ["star", "circle", "red"]) for prompt in kept)


@pytest.mark.parametrize("synonym", ["Circle", "shape", "dotted style"])
def test_a_synonym_that_is_no_concept_of_the_vocabulary_is_left_out_too(synonym: str) -> None:
    kept = plan(targets=(Target("star", synonyms=(synonym,)),)).retain
    assert len(kept) > 0
    assert not any(names(prompt, ["star", synonym]) for prompt in kept)


def test_a_list_and_a_file_are_kept_together_without_repeats(tmp_path: Path) -> None:
    file = csv(tmp_path, "prompt\na cat\na dog\n")
    both = Retain(prompts=("a dog", "a dog", "a bird"), prompts_file=file)
    assert retain_prompts(both, STAR, VOCABULARY) == ("a dog", "a bird", "a cat")
    assert retain_prompts(Retain(prompts=(), prompts_file=file), STAR, VOCABULARY) == ("a cat", "a dog")


def test_a_file_is_added_to_the_vocabularys_captions_where_there_is_one(tmp_path: Path) -> None:
    file = csv(tmp_path, "prompt\na cat\na red ring\n")
    captions = tuple(caption.text for caption in VOCABULARY.captions_without(["star"]))
    assert "a red ring in flat style" in captions and "a red ring" in captions
    assert retain_prompts(Retain(prompts_file=file), STAR, VOCABULARY) == (*captions, "a cat")
    assert retain_prompts(Retain(prompts_file=file), STAR, None) == ("a cat", "a red ring")


@pytest.mark.parametrize("prompt", ["a Star", "a red star in dotted style", "the comet"])
def test_a_prompt_that_names_a_target_is_not_kept(prompt: str) -> None:
    found = refused(Retain(prompts=("a circle", prompt)), (Target("star", synonyms=("comet",)),))
    assert found == f"retain.prompts: {prompt!r} names a target of this run; a target cannot be kept too"


def test_a_longer_word_that_begins_like_a_target_is_kept() -> None:
    assert retain_prompts(Retain(prompts=("a starfish at the start",)), STAR, None) == ("a starfish at the start",)


def test_an_empty_list_says_how_many_prompts_are_needed() -> None:
    assert refused(Retain(prompts=())).startswith("retain.prompts: no prompts to keep;")


def test_without_a_vocabulary_auto_says_what_to_give() -> None:
    (found,) = problems(model="some/model", targets=(Target("cat", templates=("a {}",)),))
    assert found.startswith("retain.prompts: `auto` needs a vocabulary")
    assert found.endswith("list prompts to keep, or give retain.prompts_file")


def test_a_loss_that_learns_from_images_keeps_no_prompts_and_needs_images(tmp_path: Path) -> None:
    given = {"retain_loss": Denoising()}
    assert plan(retain=Retain(images=tmp_path), **given).retain == ()
    (found,) = problems(**given)
    assert found == "retain.images: denoising learns from captioned images; found none"


def test_anchors_are_made_where_the_loss_needs_them() -> None:
    assert plan().targets[0].anchors is None
    (target,) = plan(targets=(Target("star", anchor="circle"),), forget_loss=AnchorRedirection()).targets
    assert target.anchors == tuple(prompt.replace("star", "circle") for prompt in target.prompts)


def test_a_prompt_of_a_file_is_not_both_erased_and_kept(tmp_path: Path) -> None:
    """It need not name the concept: such files describe scenes."""
    file = csv(tmp_path, "prompt\na red ring\na person on a beach\n")
    target = Target("nudity", concept_prompt="nudity", prompts_file=file)
    found = problems(targets=(target,), retain=Retain(prompts=("a person on a beach", "a dog")), model="some/model")
    rule = "to be kept, and to be erased as prompts of targets.0; take what is in both out of one of them"
    assert found == (f"retain: 'a person on a beach' is {rule}",)
    same = problems(targets=(target,), retain=Retain(prompts_file=file), model="some/model")
    assert same == (f"retain: 'a red ring' and 1 more are {rule}",)


@pytest.mark.parametrize(
    ("loss", "key", "value"),
    [
        (NegativeGuidance(), "neutral", "star"),
        (NegativeGuidance(), "neutral", "a shape like a Comet"),
        (NegativeGuidance(), "neutral", "circle"),
        (AnchorRedirection(), "anchor", "red star"),
        (AnchorRedirection(), "anchor_prompt", "a star"),
    ],
)
def test_a_wording_without_the_concept_does_not_name_a_target(loss: ForgetLoss, key: str, value: str) -> None:
    """It would have the model learn to draw what it draws, and the run would say that it erased it."""
    others = Target("circle", anchor="ring" if key != "neutral" else None)
    targets = (Target("star", synonyms=("comet",), **{key: value}), others)  # type: ignore[arg-type]
    (found,) = problems(targets=targets, forget_loss=loss)
    assert found.startswith(f"targets.0.{key}: {value!r} names a target of this run")


IDLE: list[tuple[ForgetLoss, dict[str, str], list[str]]] = [
    (NegativeGuidance(), {"anchor": "ring"}, ["anchor"]),
    (NegativeGuidance(), {"anchor_prompt": "a ring"}, ["anchor_prompt"]),
    (NegativeGuidance(), {"neutral": "shape", "concept_prompt": "a star"}, ["concept_prompt"]),
    (GradientAscent(), {"neutral": "shape"}, ["neutral"]),
    (GradientAscent(), {"concept_prompt": "a star", "anchor": "ring"}, ["concept_prompt", "anchor"]),
    (AnchorRedirection(), {"anchor": "ring", "neutral": "shape"}, ["neutral"]),
    (AnchorRedirection(), {"anchor": "ring", "concept_prompt": "a star"}, ["concept_prompt"]),
    (AnchorRedirection(), {"anchor": "ring", "anchor_prompt": "a ring"}, ["anchor"]),
]


@pytest.mark.parametrize(("loss", "words", "idle"), IDLE, ids=lambda value: str(getattr(value, "name", "")))
def test_a_wording_that_the_forget_loss_does_not_look_at_is_refused(
    loss: ForgetLoss, words: dict[str, str], idle: list[str]
) -> None:
    found = problems(targets=(Target("star", **words),), forget_loss=loss)  # type: ignore[arg-type]
    assert [message.split(":")[0] for message in found] == [f"targets.0.{key}" for key in idle]
    assert all(repr(words[key]) in message for key, message in zip(idle, found, strict=True))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (NegativeGuidance(), {"neutral": "shape"}),
        (NegativeGuidance(), {"concept_prompt": "a star"}),
        (AnchorRedirection(), {"anchor": "ring"}),
        (AnchorRedirection(), {"anchor_prompt": "a ring"}),
        (GradientAscent(), {}),
    ],
    ids=str,
)
def test_a_wording_that_the_forget_loss_looks_at_is_taken(loss: ForgetLoss, words: dict[str, Any]) -> None:
    assert plan(targets=(Target("star", **words),), forget_loss=loss).targets[0].prompts


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"prompts": ("a ring",)}, "retain.prompts"),
        ({"prompts": ()}, "retain.prompts"),
        ({"prompts_file": Path("no/such.csv")}, "retain.prompts_file"),
    ],
)
def test_a_loss_that_learns_from_images_refuses_prompts(tmp_path: Path, given: dict[str, Any], key: str) -> None:
    (found,) = problems(retain=Retain(images=tmp_path, **given), retain_loss=Denoising())
    assert found.startswith(f"{key}: denoising keeps images, not prompts; found ")
    assert found.endswith("or choose retain_loss.name teacher_distillation")


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems(
        targets=(Target("stra"), Target("circle", templates=("no place",)), Target("moon")),
        forget_loss=AnchorRedirection(),
        retain=Retain(prompts=("a moon",)),
    )
    assert [message.split(":")[0] for message in found] == [
        "targets.0.concept",
        "targets.1.templates",
        "targets.2.anchor",
        "retain.prompts",
    ]


def test_the_embedded_model_brings_its_vocabulary_and_another_does_not(tmp_path: Path) -> None:
    assert read_vocabulary(None, "shapes") is VOCABULARY
    assert read_vocabulary("shapes", "some/model") is VOCABULARY
    assert read_vocabulary(None, "some/model") is None


def test_a_vocabulary_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text("domains: {animal: [cat, dog]}\ntemplates: ['a {animal}', 'a picture']\n", encoding="utf-8")
    given = {"model": "some/model", "vocabulary": str(file), "targets": (Target("cat"),)}
    assert plan(**given).targets[0].prompts == ("a cat",)
    assert plan(**given).retain == ("a dog",)


@pytest.mark.parametrize(
    "text",
    [
        "domains: {animal: [cat, cat]}\ntemplates: []\n",
        "domains: {animal: [cat]}\ntemplates: ['a {size}']\n",
        "domains: 3\ntemplates: []\n",
        "domains: {}\n",
        None,
    ],
)
def test_a_vocabulary_that_is_wrong_is_named_with_its_key(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "words.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    for found in problems(vocabulary=str(file)):
        assert found.startswith("vocabulary") and str(file) in found


def test_every_prompt_of_a_plan_is_listed_by_the_key_that_it_comes_from() -> None:
    made = plan(targets=(STAR[0], Target("moon")), forget_loss=NegativeGuidance())
    redirected = plan(targets=(Target("star", anchor_prompt="a circle"),), forget_loss=AnchorRedirection())
    keyed = keyed_prompts(made)
    assert keyed["retain.prompts"] == list(made.retain)
    assert keyed["targets.0.prompts"] == list(made.targets[0].prompts)
    assert keyed["targets.0.concept_prompt"] == [] and "a shape" in keyed["targets.0.neutral"]
    assert keyed["targets.1.anchor"] == []
    assert keyed_prompts(redirected)["targets.0.anchor"] == ["a circle"]


@pytest.mark.parametrize(
    "wrong", [{"forget": 0}, {"steps": 1001}, {"guidance_scale": -1.0}, {"batch_size": 0}, {"retain": 0}]
)
def test_latent_settings_are_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LatentSettings(**wrong)


def test_the_default_losses_are_the_papers_pair() -> None:
    settings = ErasureSettings(targets=STAR)
    assert (settings.forget_loss.name, settings.retain_loss) == ("negative_guidance", TeacherDistillation())
