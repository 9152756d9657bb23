"""Pixels: the pipeline's own, each image's noise its own, nothing blackened."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from erase.diffusion.pipelines import load_pipeline
from erase.errors import UserError
from erase.generation.plan import Ask, Look
from erase.generation.prompts import PromptRow
from erase.generation.sampler import PipelineSampler, load_sampler
from erase.generation.settings import Generation
from tests.tiny import save_tiny, tiny_pipeline

LOOK = Look(steps=2, guidance_scale=4.0, width=16, height=16)
ROWS = [
    PromptRow(str(i), prompt, i) for i, prompt in enumerate(("a star", "a red circle", "a blue moon in dotted style"))
]
ONE_LEVEL = 1
"""Of 255: float32 convolutions round otherwise in another batch, and a pixel may fall on the other side."""


def asks(look: Look = LOOK, rows: list[PromptRow] = ROWS, k: int = 0) -> list[Ask]:
    return [Ask(row, k, look) for row in rows]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def sampler(pipeline: Any) -> PipelineSampler:
    return PipelineSampler(pipeline)


def plain(pipeline: Any, ask: Ask) -> Any:
    """As diffusers makes it."""
    look = ask.look
    return np.asarray(
        pipeline(
            ask.row.prompt,
            num_inference_steps=look.steps,
            guidance_scale=look.guidance_scale,
            width=look.width,
            height=look.height,
            generator=torch.Generator().manual_seed(ask.seed),
        ).images[0]
    )


def distance(left: Any, right: Any) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@pytest.mark.parametrize(
    "look", [LOOK, Look(3, 1.0, 16, 16), Look(2, 0.0, 16, 16), Look(2, 7.5, 32, 16), Look(2, 1.5, 16, 24)]
)
@pytest.mark.parametrize("k", [0, 2])
def test_a_picture_is_the_one_that_diffusers_makes(pipeline: Any, sampler: PipelineSampler, look: Look, k: int) -> None:
    made = sampler(asks(look, k=k))
    assert made.shape == (3, look.height, look.width, 3)
    assert made.dtype == np.uint8
    for ask, picture in zip(asks(look, k=k), made, strict=True):
        assert distance(picture, plain(pipeline, ask)) <= ONE_LEVEL


def test_alone_a_picture_is_diffusers_own_bit_for_bit(pipeline: Any, sampler: PipelineSampler) -> None:
    for ask in asks():
        assert np.array_equal(sampler([ask])[0], plain(pipeline, ask))


def test_the_same_batch_gives_the_same_bits_whatever_came_before(pipeline: Any, sampler: PipelineSampler) -> None:
    first = sampler(asks())
    sampler(asks(rows=ROWS[1:]))
    torch.manual_seed(99)
    assert np.array_equal(sampler(asks()), first)
    assert np.array_equal(PipelineSampler(pipeline)(asks()), first)


def test_neither_order_nor_company_changes_a_picture(sampler: PipelineSampler) -> None:
    together = sampler(asks())
    assert distance(sampler(asks(rows=ROWS[::-1]))[::-1], together) <= ONE_LEVEL
    assert distance(np.concatenate([sampler([ask]) for ask in asks()]), together) <= ONE_LEVEL


def test_prompt_seed_k_and_guidance_each_change_the_picture(sampler: PipelineSampler) -> None:
    star = ROWS[0]
    others = [
        Ask(PromptRow("0", "a red circle", star.seed), 0, LOOK),
        Ask(PromptRow("0", star.prompt, 77), 0, LOOK),
        Ask(star, 1, LOOK),
        Ask(star, 0, Look(2, 40.0, 16, 16)),
        Ask(star, 0, Look(5, 4.0, 16, 16)),
    ]
    first = sampler([Ask(star, 0, LOOK)])
    assert all(distance(sampler([ask]), first) > ONE_LEVEL for ask in others)


def test_a_scheduler_that_draws_noise_draws_each_images_own() -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    look = Look(4, 4.0, 16, 16)
    together = PipelineSampler(pipeline)(asks(look))
    for ask, picture in zip(asks(look), together, strict=True):
        assert distance(picture, plain(pipeline, ask)) <= ONE_LEVEL


def test_a_picture_that_is_not_finite_is_refused_and_named() -> None:
    pipeline = tiny_pipeline()
    pipeline.vae.decoder.conv_out.bias.data[0] = torch.nan
    with pytest.raises(UserError) as caught:
        PipelineSampler(pipeline)(asks())
    assert len(caught.value.problems) == 3
    assert "'a star', seed 0, is not finite; found dtype torch.float32" in str(caught.value)


def load(folder: Path, rows: list[PromptRow] = ROWS, **other: Any) -> PipelineSampler:
    generation = Generation(model=str(folder), prompts="shapes", output_dir=folder / "out", **other)
    return load_sampler(generation, folder, rows, torch.device("cpu"))


def save_with_checker(folder: Path) -> Path:
    """A pipeline that comes with a safety checker, as Stable Diffusion 1.5 does; this one finds everything unsafe."""
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**size, "image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=size, vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(-2.0)
    pipeline = tiny_pipeline()
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
    )
    pipeline.register_to_config(requires_safety_checker=True)
    pipeline.save_pretrained(folder)
    return folder


def test_no_safety_checker_blackens_a_picture(pipeline: Any, tmp_path: Path) -> None:
    folder = save_with_checker(tmp_path / "model")
    assert plain(load_pipeline(folder), asks()[0]).max() == 0, "with it, every picture is black"
    sampler = load(folder)
    assert sampler.pipeline.safety_checker is None
    assert np.array_equal(sampler(asks()), PipelineSampler(pipeline)(asks()))


def test_a_safety_checker_is_not_even_read(tmp_path: Path) -> None:
    folder = save_with_checker(tmp_path / "model")
    for file in (folder / "safety_checker").iterdir():
        file.write_bytes(b"damaged")
    assert load(folder).pipeline.safety_checker is None
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_what_the_model_computes_in_and_the_noise_is_the_same(
    pipeline: Any, tmp_path: Path, dtype: str
) -> None:
    sampler = load(save_tiny(tmp_path / "model"), dtype=dtype)
    assert {
        p.dtype for part in ("unet", "vae", "text_encoder") for p in getattr(sampler.pipeline, part).parameters()
    } == {getattr(torch, dtype)}
    difference = np.abs(sampler(asks()).astype(int) - PipelineSampler(pipeline)(asks()).astype(int)).mean()
    assert difference == 0 if dtype == "float32" else 0 < difference < 8


def test_a_word_that_the_tokenizer_does_not_know_is_refused(tmp_path: Path) -> None:
    strange = [PromptRow("0", "a photo of a church", 0), *ROWS[1:]]
    with pytest.raises(UserError, match=r"1 prompts have a word .*'a photo of a church'; use words of its vocabulary"):
        load(save_tiny(tmp_path / "model"), strange)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    shutil.rmtree(folder / "unet")
    with pytest.raises(UserError, match="holds no"):
        load(folder)
