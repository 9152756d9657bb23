"""The frozen reference: the model as it was before training, by adapter or by copy."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase.parameters import Full, LoRA, frozen_reference
from tests.properties import assert_same_bits
from tests.tiny import tiny_unet


@pytest.fixture
def unet() -> Any:
    torch.manual_seed(0)
    return tiny_unet().eval()


def predict(unet: nn.Module) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    noisy, states = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 12, 16, generator=rng)
    return unet(noisy, torch.tensor([10, 900]), states).sample


def train(unet: nn.Module, parameters: dict[str, nn.Parameter], steps: int = 3) -> None:
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        predict(unet).square().mean().backward()
        optimizer.step()


def test_with_the_adapter_off_a_trained_model_is_the_base_bit_for_bit(unet: Any) -> None:
    base = copy.deepcopy(unet)
    before = predict(base).detach()
    trainable = LoRA(rank=2).select(unet)
    reference = frozen_reference(unet, has_adapter=True)
    train(unet, trainable)
    with reference() as model:
        assert model is unet, "no memory is spent"
        assert torch.equal(predict(model), before)
    assert (predict(unet) - before).abs().max() > 1e-3


def test_the_adapter_is_back_on_and_trainable_afterwards(unet: Any) -> None:
    trainable = LoRA(rank=2).select(unet)
    train(unet, trainable)
    trained, weights = predict(unet).detach(), [p.clone() for p in trainable.values()]
    reference = frozen_reference(unet, has_adapter=True)
    with reference() as model:
        assert not predict(model).requires_grad
    assert torch.equal(predict(unet), trained)
    assert {name for name, p in unet.named_parameters() if p.requires_grad} == set(trainable)
    train(unet, trainable, steps=1)
    assert any(not torch.equal(p, before) for p, before in zip(trainable.values(), weights, strict=True))


def test_the_adapter_comes_back_when_the_body_raises(unet: Any) -> None:
    trainable = LoRA(rank=2).select(unet)
    train(unet, trainable)
    trained = predict(unet).detach()
    with pytest.raises(ZeroDivisionError), frozen_reference(unet, has_adapter=True)():
        raise ZeroDivisionError
    assert torch.equal(predict(unet), trained)
    assert all(p.requires_grad for p in trainable.values())


def test_a_copy_does_not_move_with_the_model(unet: Any) -> None:
    before, weights = predict(unet).detach(), [p.detach().clone() for p in unet.parameters()]
    reference = frozen_reference(unet, has_adapter=False)
    train(unet, Full().select(unet))
    with reference() as model:
        assert model is not unet
        assert torch.equal(predict(model), before)
        assert_same_bits(model.parameters(), weights)
    assert (predict(unet) - before).abs().max() > 1e-3


def test_a_copy_is_frozen_and_keeps_no_graph(unet: Any) -> None:
    Full().select(unet.train())
    with frozen_reference(unet, has_adapter=False)() as model:
        assert not predict(model).requires_grad
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
    assert unet.training and all(p.requires_grad for p in unet.parameters())
    assert torch.is_grad_enabled()
