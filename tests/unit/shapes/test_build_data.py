"""What the embedded models learn from: drawings as tensors, nothings, and captions as tokens."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from erase.embedded import VOCABULARY
from erase.shapes.build.denoiser import (
    MAX_TOKENS,
    SPECIAL,
    CaptionTokens,
    encode_drawings,
    make_scheduler,
    make_tokenizer,
)
from erase.shapes.build.drawings import COMBINATIONS, Drawings, make_drawings, to_tensor
from erase.shapes.build.nothings import KINDS, hash_index, make_nothings
from erase.shapes.drawing import draw
from tests.properties import assert_same_bits
from tests.tiny import tiny_pipeline

COUNT = 12


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    return make_drawings(copies=1, seed=0)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def test_pixels_become_numbers_from_minus_1_to_1() -> None:
    pixels = np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 1, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 1, 1)
    torch.testing.assert_close(tensor.flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_drawings_are_every_combination_in_order(drawings: Drawings) -> None:
    assert drawings.images.shape == (240, 3, 32, 32) and len(drawings) == 240
    assert drawings.combination.tolist() == list(range(240))
    concepts = COMBINATIONS[17].concepts
    expected = draw(concepts["object"], concepts["color"], concepts["style"], np.random.default_rng((0, 17, 0)))
    assert_same_bits([drawings.images[17]], [to_tensor(expected[None])[0]])


def test_copies_of_a_combination_stand_together_and_differ(drawings: Drawings) -> None:
    double = make_drawings(copies=2, seed=0)
    assert double.combination[:4].tolist() == [0, 0, 1, 1]
    assert_same_bits([double.images[::2]], [drawings.images])
    assert ((double.images[::2] - double.images[1::2]).flatten(1).abs().amax(1) > 0.1).all()
    assert not torch.equal(make_drawings(copies=1, seed=1).images, drawings.images)


@pytest.mark.parametrize("kind", KINDS)
def test_nothings_are_pictures_in_range(drawings: Drawings, pipeline: Any, kind: str) -> None:
    made = make_nothings(kind, drawings, COUNT, 0, pipeline)
    assert made.shape == (COUNT, 3, 32, 32) and made.dtype == torch.float32
    assert made.min() >= -1 and made.max() <= 1
    assert not made.requires_grad
    assert len({picture.numpy().tobytes() for picture in made}) == COUNT


@pytest.mark.parametrize("kind", KINDS)
def test_nothings_are_repeatable_by_their_seed(drawings: Drawings, pipeline: Any, kind: str) -> None:
    first, again, other = (make_nothings(kind, drawings, COUNT, seed, pipeline) for seed in (0, 0, 1))
    assert_same_bits([again], [first])
    assert not torch.equal(other, first)


def test_blanks_are_of_one_color_and_noise_and_drawings_are_not(drawings: Drawings, pipeline: Any) -> None:
    def spread(kind: str) -> torch.Tensor:
        return make_nothings(kind, drawings, COUNT, 0, pipeline).flatten(2).std(2).amax(1)

    assert (spread("blank") < 1e-6).all()
    assert (spread("noise") > 0.05).all()
    sharp = drawings.images.flatten(2).std(2).amax(1)
    assert spread("blur").max() < sharp.max() and spread("blur").mean() < 0.7 * sharp.mean()


def test_blends_mix_two_drawings_that_share_no_concept(drawings: Drawings, pipeline: Any) -> None:
    made = make_nothings("blend", drawings, COUNT, 0, pipeline)
    chosen = torch.randint(240, (COUNT,), generator=torch.Generator().manual_seed(0))
    for picture, index in zip(made, chosen.tolist(), strict=True):
        concepts = COMBINATIONS[index].concepts
        others = [i for i, c in enumerate(COMBINATIONS) if all(c.concepts[d] != concepts[d] for d in concepts)]
        mixed = drawings.images[others] - drawings.images[index]  # picture = first + share (other - first)
        step = (picture - drawings.images[index]).flatten()
        share = (mixed.flatten(1) @ step) / mixed.flatten(1).square().sum(1)
        rest = (step - share[:, None] * mixed.flatten(1)).abs().amax(1)
        assert rest.min() < 1e-5
        assert 0.42 <= share[rest.argmin()] <= 0.58


def test_an_unknown_kind_lists_the_known_ones(drawings: Drawings, pipeline: Any) -> None:
    with pytest.raises(ValueError, match="kind 'fog' is unknown; known: noise, blank, blur, blend, half_denoised"):
        make_nothings("fog", drawings, 1, 0, pipeline)


def test_a_concepts_place_is_that_in_its_domain() -> None:
    assert [hash_index(word, "color") for word in VOCABULARY.domains["color"]] == list(range(6))


def test_the_tokenizer_knows_every_word_of_every_caption() -> None:
    tokenizer = make_tokenizer()
    captions = [caption.text for caption in VOCABULARY.captions()]
    ids = tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
    assert ids.shape == (len(captions), MAX_TOKENS)
    assert tokenizer.unk_token_id not in ids
    assert len({tuple(row) for row in ids.tolist()}) == len(captions)
    words = {word for caption in captions for word in re.findall(r"\w+", caption)}
    assert len(tokenizer) == len(SPECIAL) + len(words)


def test_a_caption_stands_between_start_and_end_in_any_case() -> None:
    tokenizer = make_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("A red Zebra").input_ids)
    assert tokens == ["<start>", "a", "red", "<unk>", "<end>"]


def test_tokens_are_drawn_from_the_pictures_own_captions_or_empty() -> None:
    tokenizer = make_tokenizer()
    captions = CaptionTokens(tokenizer)
    assert captions.captions.shape == (240, len(VOCABULARY.templates), MAX_TOKENS)
    drawn = tokenizer.batch_decode(captions.draw(torch.full((2000,), 17)), skip_special_tokens=True)
    counts = {text: drawn.count(text) / 2000 for text in set(drawn)}
    concepts = COMBINATIONS[17].concepts
    assert set(counts) == {"", *(template.format(**concepts) for template in VOCABULARY.templates)}
    assert abs(counts[""] - 0.1) < 0.03
    assert abs(counts[COMBINATIONS[17].text] - 0.9 * 0.55) < 0.05  # four standard errors


def test_latents_of_drawings_are_in_the_unet_s_scale(drawings: Drawings, pipeline: Any) -> None:
    few = Drawings(drawings.images[:3], drawings.combination[:3])
    with torch.no_grad():
        latents = encode_drawings(pipeline.vae, few)
        plain = pipeline.vae.encode(few.images).latent_dist.mode()
    assert latents.shape == (3, 4, 16, 16)
    torch.testing.assert_close(latents, plain * 0.18215)


def test_the_schedule_is_that_of_stable_diffusion() -> None:
    scheduler = make_scheduler()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(scheduler.alphas_cumprod, (1 - betas).cumprod(0))
    assert scheduler.config.prediction_type == "epsilon"
