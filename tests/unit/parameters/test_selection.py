"""Which parameters each selection matches, by name and count, on a real UNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase.errors import UserError
from erase.parameters import PARAMETERS, CrossAttention, CrossAttentionKV, Full, LoRA, NotCrossAttention, Parameters
from tests.properties import assert_same_bits
from tests.tiny import tiny_unet

BY_NAME = [cls() for cls in PARAMETERS.values() if cls is not LoRA]
KEPT = {f"{layer}.{kind}" for layer in ("conv_out", "conv_norm_out") for kind in ("weight", "bias")} | {
    f"time_embedding.linear_{index}.{kind}" for index in (1, 2) for kind in ("weight", "bias")
}
BLOCKS = (
    "down_blocks.1.attentions.0",
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
    "mid_block.attentions.0",
)
"""The transformers of the tiny UNet: each has one self-attention and one cross-attention."""


@pytest.fixture
def unet() -> Any:
    torch.manual_seed(0)
    return tiny_unet().eval()


def names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def of_attention(number: int, layers: tuple[str, ...]) -> set[str]:
    return {f"{block}.transformer_blocks.0.attn{number}.{layer}" for block in BLOCKS for layer in layers}


def predict(unet: nn.Module) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    noisy, states = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 12, 16, generator=rng)
    return unet(noisy, torch.tensor([10, 900]), states).sample.detach()


def test_full_is_every_parameter(unet: nn.Module) -> None:
    chosen = Full().select(unet)
    assert set(chosen) == names(unet)
    assert len(chosen) == 208
    assert sum(p.numel() for p in chosen.values()) == 64_796


def test_cross_attention_is_its_four_projections(unet: nn.Module) -> None:
    layers = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    chosen = CrossAttention().select(unet)
    assert set(chosen) == of_attention(2, layers)
    assert sum(p.numel() for p in chosen.values()) == len(BLOCKS) * (4 * 16 * 16 + 16)


def test_cross_attention_kv_is_keys_and_values(unet: nn.Module) -> None:
    chosen = CrossAttentionKV().select(unet)
    assert set(chosen) == of_attention(2, ("to_k.weight", "to_v.weight"))
    assert sum(p.numel() for p in chosen.values()) == len(BLOCKS) * 2 * 16 * 16


def test_cross_attention_its_complement_and_what_esd_keeps_make_the_whole(unet: nn.Module) -> None:
    inside, outside = (set(p.select(unet)) for p in (CrossAttention(), NotCrossAttention()))
    assert not inside & outside
    assert names(unet) - inside - outside == KEPT
    assert of_attention(1, ("to_q.weight", "to_out.0.bias")) < outside
    assert {"conv_in.weight", "conv_in.bias"} < outside


@pytest.mark.parametrize("parameters", BY_NAME, ids=lambda p: p.name)
def test_only_what_is_chosen_asks_for_gradients(unet: nn.Module, parameters: Parameters) -> None:
    chosen = parameters.select(unet)
    assert {name for name, p in unet.named_parameters() if p.requires_grad} == set(chosen)
    assert all(p is dict(unet.named_parameters())[name] for name, p in chosen.items())


@pytest.mark.parametrize("parameters", BY_NAME, ids=lambda p: p.name)
def test_choosing_changes_no_value(unet: nn.Module, parameters: Parameters) -> None:
    before = [p.clone() for p in unet.parameters()]
    parameters.select(unet)
    assert_same_bits(unet.parameters(), before)


@pytest.mark.parametrize(
    "parameters", [CrossAttention(), CrossAttentionKV(), NotCrossAttention()], ids=lambda p: p.name
)
def test_a_choice_that_matches_nothing_is_refused(parameters: Parameters) -> None:
    model = nn.ModuleDict({"conv_out": nn.Linear(2, 2)})
    with pytest.raises(UserError) as caught:
        parameters.select(model)
    assert str(caught.value) == f"parameters.name: {parameters.name} matches none of the ModuleDict's parameters"


def test_a_later_choice_replaces_an_earlier_one(unet: nn.Module) -> None:
    Full().select(unet)
    chosen = CrossAttentionKV().select(unet)
    assert {name for name, p in unet.named_parameters() if p.requires_grad} == set(chosen)


def test_an_adapter_has_two_matrices_a_layer_and_freezes_the_rest(unet: nn.Module) -> None:
    before = names(unet)
    chosen = LoRA(rank=3).select(unet)
    layers = 2 * 4 * len(BLOCKS)  # self- and cross-attention, q, k, v and out
    assert len(chosen) == 2 * layers
    assert sum(p.numel() for p in chosen.values()) == layers * 2 * 3 * 16
    assert {name.split(".")[-3] for name in chosen} == {"lora_A", "lora_B"}
    assert {name for name, p in unet.named_parameters() if p.requires_grad} == set(chosen)
    assert len(names(unet)) == len(before) + 2 * layers


def test_an_adapter_sits_on_the_layers_asked_for(unet: nn.Module) -> None:
    chosen = LoRA(rank=2, target_modules=("attn2.to_v", "proj_in")).select(unet)
    ends = ("attn2.to_v", "proj_in")
    assert {name.split(".lora_")[0].endswith(ends) for name in chosen} == {True}
    assert len(chosen) == 2 * 2 * len(BLOCKS)


def test_a_new_adapter_leaves_every_prediction_as_it_was(unet: nn.Module) -> None:
    before = predict(unet)
    chosen = LoRA(rank=2).select(unet)
    assert torch.equal(predict(unet), before)
    with torch.no_grad():
        for p in chosen.values():
            p.add_(0.1)
    assert (predict(unet) - before).abs().max() > 1e-3


def test_an_adapters_alpha_over_rank_scales_its_update() -> None:
    def update(alpha: float, rank: int) -> Tensor:
        holder: Any = tiny_unet()
        chosen = LoRA(rank=rank, alpha=alpha, target_modules=("mid_block.attentions.0.proj_out",)).select(holder)
        with torch.no_grad():
            for p in chosen.values():
                p.fill_(0.1)
        layer = holder.mid_block.attentions[0].proj_out
        return layer(torch.ones(1, 16, 1, 1)) - layer.base_layer(torch.ones(1, 16, 1, 1))

    one = update(alpha=2.0, rank=2)  # (alpha / rank) B A x = 1 * 2 * 0.1 * 16 * 0.1
    torch.testing.assert_close(one, torch.full_like(one, 0.32))
    torch.testing.assert_close(update(alpha=6.0, rank=2), 3 * one)
    torch.testing.assert_close(update(alpha=2.0, rank=4), one)


@pytest.mark.parametrize("wrong", ["to_w", "o_q", "mid_block.attentions.7.proj_in"])
def test_a_layer_that_the_model_lacks_is_named(unet: nn.Module, wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        LoRA(target_modules=("to_q", wrong)).select(unet)
    assert str(caught.value) == f"parameters.target_modules: {wrong} matches no layer of the model"
    assert not any("lora" in name for name in names(unet))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"target_modules": ()}])
def test_an_adapters_settings_are_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LoRA(**wrong)


def test_the_table_finds_each_choice_under_its_own_name() -> None:
    assert {name: cls().name for name, cls in PARAMETERS.items()} == {name: name for name in PARAMETERS}
