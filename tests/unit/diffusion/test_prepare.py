"""The base with what training draws from: pools, prompts, counts and hashes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from erase.diffusion.concepts import LatentSettings, Retain, Target
from erase.diffusion.latents import LatentRequest, make_latents
from erase.diffusion.losses import AnchorRedirection, Denoising, ForgetLoss, NegativeGuidance
from erase.diffusion.pipelines import load_pipeline
from erase.diffusion.prepare import Base, Prepared, load_base, prepare, read_images
from erase.diffusion.settings import ErasureSettings, make_plan
from erase.errors import UserError
from erase.provenance import hash_folder
from tests.properties import assert_same_bits
from tests.tiny import save_tiny

CPU = torch.device("cpu")
STAR, MOON = Target("star"), Target("moon", weight=3.0)
ANCHORED = (Target("star", anchor="circle"), Target("moon", anchor_prompt="a red ring", weight=3.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def settings(model: Path, cache: Path, **given: Any) -> ErasureSettings:
    latents = LatentSettings(forget=5, neutral=0, retain=4, steps=1, guidance_scale=1.0, cache_dir=cache)
    common: dict[str, Any] = {"model": str(model), "vocabulary": "shapes", "targets": (STAR,), "latents": latents}
    return ErasureSettings(**(common | given))


def prepared(wanted: ErasureSettings, seed: int = 0) -> tuple[Base, Prepared]:
    plan = make_plan(wanted)
    base = load_base(wanted, plan, CPU)
    return base, prepare(base, wanted, plan, seed, quiet=True)


def test_the_base_knows_its_folder_and_its_hash(model: Path, tmp_path: Path) -> None:
    wanted = settings(model, tmp_path)
    base = load_base(wanted, make_plan(wanted), CPU)
    assert (base.folder, base.hash) == (model, hash_folder(model))


def test_every_prompt_that_the_model_cannot_read_is_named(model: Path, tmp_path: Path) -> None:
    wanted = settings(
        model,
        tmp_path,
        targets=(Target("star", prompts=("a zebra star",), concept_prompt="stars"),),
        retain=Retain(prompts=("a circle", "a tiger")),
    )
    with pytest.raises(UserError) as caught:
        load_base(wanted, make_plan(wanted), CPU)
    assert [message.split(" has a word")[0] for message in caught.value.problems] == [
        "retain.prompts: 'a tiger'",
        "targets.0.prompts: 'a zebra star'",
        "targets.0.concept_prompt: 'stars'",
    ]
    assert all("use words of its vocabulary" in message for message in caught.value.problems)


def test_pools_have_the_sizes_asked_for_and_prompts_in_turn(model: Path, tmp_path: Path) -> None:
    prompts = ("a star", "a red star", "a blue star")
    retain = Retain(prompts=("a ring", "a moon"), empty_prompt=False)
    wanted = settings(model, tmp_path, targets=(Target("star", prompts=prompts),), retain=retain)
    _, made = prepared(wanted)
    assert made.forget.latents.shape == (5, 4, 8, 8) and made.retain.latents.shape == (4, 4, 8, 8)
    assert sorted(Counter(made.forget.prompts).values()) == [1, 2, 2]
    assert Counter(made.retain.prompts) == {"a ring": 2, "a moon": 2}
    assert made.forget.concepts == made.forget.prompts
    assert Counter(made.forget.baselines).keys() == {"a shape", "a red shape", "a blue shape"}
    assert (made.retain.concepts, made.retain.anchors, made.retain.weights) == (None, None, None)


def test_the_empty_prompt_is_kept_on_the_targets_latents(model: Path, tmp_path: Path) -> None:
    _, made = prepared(settings(model, tmp_path))
    assert made.retain.prompts[4:] == ("",) and "" not in made.retain.prompts[:4]  # one in five
    assert any(torch.equal(made.retain.latents[4], latent) for latent in made.forget.latents)


def test_what_is_told_covers_all_that_a_batch_looks_up(model: Path, tmp_path: Path) -> None:
    _, made = prepared(settings(model, tmp_path, targets=ANCHORED[:1], forget_loss=AnchorRedirection()))
    assert set(made.told) == {*made.forget.texts(), *made.retain.texts()}
    made.forget.draw(5, made.told, 1000, 0, "forget", 0)
    made.retain.draw(4, made.told, 1000, 0, "retain", 0)


def test_targets_have_equal_shares_with_their_own_concept_weight_and_anchor(model: Path, tmp_path: Path) -> None:
    _, made = prepared(settings(model, tmp_path, targets=ANCHORED, forget_loss=AnchorRedirection()))
    forget = made.forget
    assert len(forget) == len(forget.latents) == 4  # 5 // 2 each
    assert forget.weights == (1.0, 1.0, 3.0, 3.0)
    assert forget.anchors == (*(prompt.replace("star", "circle") for prompt in forget.prompts[:2]), *["a red ring"] * 2)
    assert all("star" in prompt for prompt in forget.prompts[:2])
    assert all("moon" in prompt for prompt in forget.prompts[2:])


@pytest.mark.parametrize(
    ("loss", "target", "word"), [(NegativeGuidance(), STAR, "shape"), (AnchorRedirection(), ANCHORED[0], "circle")]
)
def test_each_target_is_forgotten_on_pictures_without_it_too(
    model: Path, tmp_path: Path, loss: ForgetLoss, target: Target, word: str
) -> None:
    """The same starting noise, drawn with the concept and without it: the picture is what that wording gives."""
    latents = LatentSettings(forget=3, neutral=2, retain=1, steps=1, guidance_scale=1.0, cache_dir=tmp_path)
    base, made = prepared(settings(model, tmp_path, latents=latents, forget_loss=loss, targets=(target,)))
    forget = made.forget
    assert forget.shows == (True, True, True, False, False)
    assert all("star" in prompt for prompt in forget.prompts) and forget.prompts[3:] == forget.prompts[:2]
    assert forget.weights == (1.0,) * 5
    wording = tuple(prompt.replace("star", word) for prompt in forget.prompts[3:])
    assert (forget.baselines if word == "shape" else forget.anchors or ())[3:] == wording  # type: ignore[index]
    request = LatentRequest(base.hash, wording, 0, "DDIMScheduler", 1, 1.0)
    assert_same_bits([forget.latents[3:]], [make_latents(base.pipeline, request, 32, quiet=True)])


def test_a_target_without_a_neutral_wording_has_no_such_pictures(model: Path, tmp_path: Path) -> None:
    latents = LatentSettings(forget=3, neutral=2, retain=1, steps=1, guidance_scale=1.0, cache_dir=tmp_path)
    named = Target("star", prompts=("a star", "a red star"), concept_prompt="a star")
    _, made = prepared(settings(model, tmp_path, latents=latents, targets=(named,)))
    assert made.forget.shows == (True, True, True)
    assert made.forget.baselines == ("", "", "")


def test_more_targets_than_latents_still_have_one_each(model: Path, tmp_path: Path) -> None:
    latents = LatentSettings(forget=1, neutral=0, retain=1, steps=1, guidance_scale=1.0, cache_dir=tmp_path)
    _, made = prepared(settings(model, tmp_path, targets=(STAR, MOON), latents=latents))
    assert ["star" in prompt for prompt in made.forget.prompts] == [True, False]


def test_latents_are_counted_alike_when_made_and_when_cached(model: Path, tmp_path: Path) -> None:
    (_, first), (_, again) = (prepared(settings(model, tmp_path)) for _ in range(2))
    assert (first.latent_evaluations, again.latent_evaluations) == (9, 9)  # 5 + 4, one step, no guidance
    was, now = ([made.forget.latents[:], made.retain.latents[:]] for made in (first, again))
    assert_same_bits(was, now)
    assert again.prompt_hashes == first.prompt_hashes


def test_another_seed_or_base_makes_other_latents(model: Path, tmp_path: Path) -> None:
    _, first = prepared(settings(model, tmp_path))
    _, reseeded = prepared(settings(model, tmp_path), seed=1)
    _, other = prepared(settings(save_tiny(tmp_path / "other", seed=1), tmp_path))
    assert reseeded.latent_evaluations == other.latent_evaluations == 9
    assert other.forget.prompts == first.forget.prompts
    assert not torch.equal(other.forget.latents[:], first.forget.latents[:])


def test_each_objectives_prompts_have_a_hash_of_their_own(model: Path, tmp_path: Path) -> None:
    _, plain = prepared(settings(model, tmp_path))
    _, other = prepared(settings(model, tmp_path, retain=Retain(prompts=("a ring",))))
    assert other.prompt_hashes["forget"] == plain.prompt_hashes["forget"]
    assert other.prompt_hashes["retain"] != plain.prompt_hashes["retain"]


def image_folder(folder: Path, metadata: bool = True) -> Path:
    folder.mkdir()
    for index, color in enumerate(["red", "blue", "white"]):
        Image.new("RGB", (20, 30), color).save(folder / f"{index}.png")
    if metadata:
        lines = [f'{{"file_name": "{i}.png", "text": "a {c} shape"}}' for i, c in enumerate(["red", "blue", "cyan"])]
        (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def dataset_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def of_images(model: Path, cache: Path, folder: Path) -> ErasureSettings:
    return settings(model, cache, retain_loss=Denoising(), retain=Retain(images=folder))


def test_captioned_images_are_kept_as_latents_of_the_autoencoder(
    model: Path, tmp_path: Path, dataset_cache: None
) -> None:
    base, made = prepared(of_images(model, tmp_path, image_folder(tmp_path / "images")))
    assert made.retain.prompts == ("a red shape", "a blue shape", "a cyan shape", "")
    assert any(torch.equal(made.retain.latents[3], kept) for kept in made.retain.latents[:3]), "of what is kept"
    assert "" in made.told
    assert made.latent_evaluations == 5  # those to forget alone
    white = torch.ones(1, 3, 16, 16)
    with torch.no_grad():
        expected = base.pipeline.vae.encode(white).latent_dist.mode() * base.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(made.retain.latents[2:3], expected, rtol=0, atol=1e-5)
    assert (made.retain.latents[0] - expected).abs().max() > 1e-2


def test_a_wide_image_loses_its_sides_and_no_shape(model: Path, tmp_path: Path, dataset_cache: None) -> None:
    """Its square in the middle is as it was: what lies beyond would squeeze it."""
    folder = image_folder(tmp_path / "images")
    square = Image.open(sorted(folder.glob("*.png"))[0]).convert("RGB").resize((16, 16))
    wide = Image.new("RGB", (48, 16), "lime")
    wide.paste(square, (16, 0))
    for image, name in ((square, "0"), (wide, "1")):
        image.save(folder / f"{name}.png")
    lines = [f'{{"file_name": "{name}.png", "text": "a red shape"}}' for name in ("0", "1")]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    _, made = prepared(of_images(model, tmp_path, folder))
    torch.testing.assert_close(made.retain.latents[1], made.retain.latents[0], rtol=0, atol=1e-5)


def test_images_that_cannot_be_used_are_refused(model: Path, tmp_path: Path, dataset_cache: None) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            prepared(of_images(model, tmp_path, folder))
        return str(caught.value)

    assert refused(tmp_path / "none") == f"retain.images: {tmp_path / 'none'} is no folder"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").startswith(f"retain.images: {tmp_path / 'empty'} ")
    bare = image_folder(tmp_path / "bare", metadata=False)
    assert refused(bare).startswith(f"retain.images: {bare} has no captions; add metadata.jsonl")
    damaged = image_folder(tmp_path / "damaged")
    file = sorted(damaged.glob("*.png"))[1]
    file.write_bytes(file.read_bytes()[:-30] + b"\0" * 30)
    assert refused(damaged).startswith(f"retain.images: image 2 of {damaged}, 'a blue shape', cannot be read: ")
    deep = image_folder(tmp_path / "deep")
    Image.new("I;16", (16, 16), 3000).save(sorted(deep.glob("*.png"))[2])
    assert "'a cyan shape', cannot be read: its mode is I;16, more than 8 bits a channel" in refused(deep)


def test_a_caption_that_is_a_target_s_prompt_is_refused(model: Path, tmp_path: Path, dataset_cache: None) -> None:
    folder = image_folder(tmp_path / "images")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a red ring"}', encoding="utf-8")
    pipeline = load_pipeline(model)
    assert read_images(folder, pipeline, ["star"])[0].prompts == ("a red ring",)
    with pytest.raises(UserError, match="the caption 'a red ring' is also a prompt of a target"):
        read_images(folder, pipeline, ["star"], ["a red ring"])


def test_a_caption_with_a_word_that_the_model_does_not_know_is_refused(
    model: Path, tmp_path: Path, dataset_cache: None
) -> None:
    folder = image_folder(tmp_path / "images")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a zebra"}', encoding="utf-8")
    with pytest.raises(UserError, match="'a zebra' has a word that the model's tokenizer does not know"):
        prepared(of_images(model, tmp_path, folder))
