"""What each choice of parameters moves in the UNets of Stable Diffusion and SDXL, by names, shapes and counts."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from torch import nn

from erase.parameters import PARAMETERS, CrossAttention, CrossAttentionKV, LoRA
from tests.families import TRUE_SIZE, true_size_unet

COUNTS = {
    "sd-1.5": {
        "full": (686, 859_520_964),
        "cross_attention": (80, 43_962_560),
        "cross_attention_kv": (32, 19_169_280),
        "not_cross_attention": (598, 813_495_680),
        "lora": (256, 1_594_368),
    },
    "sd-2.1": {
        "full": (686, 865_910_724),
        "cross_attention": (80, 50_352_320),
        "cross_attention_kv": (32, 25_559_040),
        "not_cross_attention": (598, 813_495_680),
        "lora": (256, 1_659_904),
    },
    "sdxl": {
        "full": (1680, 2_567_463_684),
        "cross_attention": (350, 545_670_400),
        "cross_attention_kv": (140, 340_787_200),
        "not_cross_attention": (1322, 2_019_730_560),
        "lora": (1120, 11_612_160),
    },
}
"""Tensors, and numbers in them; the LoRA of rank 8."""
BLOCKS = {
    "sd-1.5": {320: 5, 640: 5, 1280: 6},
    "sd-2.1": {320: 5, 640: 5, 1280: 6},
    "sdxl": {640: 10, 1280: 60},
}
"""Transformer blocks of each width. SD: 2 down and 3 up a level, 1 in the middle; SDXL: 5 of 2, 5 and 1 of 10."""
PROMPT = {"sd-1.5": 768, "sd-2.1": 1024, "sdxl": 768 + 1280}
"""Width of a prompt's states."""


@cache
def selected(model: str, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what moves."""
    unet: Any = true_size_unet(model)
    return {key: tuple(p.shape) for key, p in PARAMETERS[name]().select(unet).items()}


def numbers(shapes: dict[str, tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    return total


@pytest.mark.parametrize(("model", "name"), [(model, name) for model in TRUE_SIZE for name in PARAMETERS])
def test_tensors_and_numbers_are_those_of_the_real_model(model: str, name: str) -> None:
    shapes = selected(model, name)
    assert (len(shapes), numbers(shapes)) == COUNTS[model][name]


@pytest.mark.parametrize("model", TRUE_SIZE)
def test_they_are_what_the_widths_of_the_blocks_come_to(model: str) -> None:
    """By hand: w x p for each key and value, w x w for query and output, whose bias is w; a LoRA r (in + out)."""
    blocks, p, r = BLOCKS[model], PROMPT[model], LoRA().rank
    both = sum(count * 2 * w * p for w, count in blocks.items())
    square = sum(count * (2 * w * w + w) for w, count in blocks.items())
    assert COUNTS[model][CrossAttentionKV().name] == (2 * sum(blocks.values()), both)
    assert COUNTS[model][CrossAttention().name] == (5 * sum(blocks.values()), both + square)
    adapters = sum(count * r * (6 * 2 * w + 2 * (w + p)) for w, count in blocks.items())
    assert COUNTS[model][LoRA().name] == (16 * sum(blocks.values()), adapters)


@pytest.mark.parametrize("model", TRUE_SIZE)
def test_keys_and_values_read_the_prompt(model: str) -> None:
    shapes = selected(model, "cross_attention_kv")
    assert {shape[1] for shape in shapes.values()} == {PROMPT[model]}
    for width, count in BLOCKS[model].items():
        assert sum(shape[0] == width for shape in shapes.values()) == 2 * count
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in shapes)


@pytest.mark.parametrize("model", TRUE_SIZE)
def test_cross_attention_and_the_rest_are_the_whole_but_for_what_esd_keeps(model: str) -> None:
    whole, cross, rest = (selected(model, name) for name in ("full", "cross_attention", "not_cross_attention"))
    assert not cross.keys() & rest.keys()
    kept = whole.keys() - cross.keys() - rest.keys()
    layers = ("conv_out", "conv_norm_out", "time_embedding.linear_1", "time_embedding.linear_2")
    assert kept == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_sdxl_also_reads_the_pooled_prompt_and_the_size() -> None:
    shapes = selected("sdxl", "full")
    assert shapes["add_embedding.linear_1.weight"] == (1280, 1280 + 6 * 256)
    assert not any(name.startswith("add_embedding") for name in selected("sdxl", "cross_attention"))


def test_no_number_is_stored_for_any_of_it() -> None:
    model: nn.Module = true_size_unet("sdxl")
    assert {p.device.type for p in model.parameters()} == {"meta"}
