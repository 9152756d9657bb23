"""The part of a UNet that a parameter's name stands for."""

from __future__ import annotations

from collections import Counter

import pytest

from erase.diffusion.blocks import block_of
from erase.diffusion.losses import NegativeGuidance, TeacherDistillation
from erase.diffusion.task import ErasureTask
from erase.parameters import Full, LoRA, Parameters
from tests.tiny import tiny_pipeline, tiny_unet
from tests.unit.diffusion.material import circle_examples, star_examples, told_of

PARTS = {f"{stage}.{kind}" for stage in ("down", "mid", "up") for kind in ("attention", "convolution")}


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", "down.attention"),
        ("down_blocks.0.resnets.0.conv1.weight", "down.convolution"),
        ("down_blocks.0.downsamplers.0.conv.bias", "down.convolution"),
        ("mid_block.attentions.0.proj_in.weight", "mid.attention"),
        ("mid_block.resnets.1.norm2.weight", "mid.convolution"),
        ("up_blocks.0.attentions.1.norm.bias", "up.attention"),
        ("up_blocks.0.upsamplers.0.conv.weight", "up.convolution"),
        ("conv_in.weight", "other"),
        ("conv_norm_out.bias", "other"),
        ("time_embedding.linear_1.weight", "other"),
        ("base_model.model.up_blocks.0.attentions.0.proj_out.lora_A.default.weight", "up.attention"),
        ("attentions.weight", "other"),
        ("", "other"),
    ],
)
def test_a_name_s_block_by_hand(name: str, block: str) -> None:
    assert block_of(name) == block


def test_every_parameter_of_a_real_unet_has_its_block() -> None:
    names = [name for name, _ in tiny_unet().named_parameters()]
    found = Counter(block_of(name) for name in names)
    assert set(found) == PARTS | {"other"}
    assert sum(found.values()) == len(names) == 208
    outside = {name.split(".")[0] for name in names if block_of(name) == "other"}
    assert outside == {"conv_in", "time_embedding", "conv_norm_out", "conv_out"}
    assert all((".attentions." in name) == block_of(name).endswith("attention") for name in names)
    assert all(name.startswith(block_of(name).split(".")[0]) for name in names if block_of(name) != "other")


@pytest.mark.parametrize("parameters", [Full(), LoRA(rank=2)], ids=lambda parameters: parameters.name)
def test_a_task_says_the_block_of_each_parameter_that_it_trains(parameters: Parameters) -> None:
    pipeline = tiny_pipeline()
    losses, pools = (NegativeGuidance(), TeacherDistillation()), (star_examples(), circle_examples())
    task = ErasureTask(pipeline, parameters, losses, pools, told_of(pipeline))
    assert task.blocks == [block_of(name) for name in task.trainable]
    expected = (
        PARTS | {"other"} if isinstance(parameters, Full) else {"down.attention", "mid.attention", "up.attention"}
    )
    assert set(task.blocks) == expected
