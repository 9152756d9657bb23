"""The memory estimate: what stays, by hand; what comes and goes, against torch's own allocator; the sizes promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from erase.config import build
from erase.training.erasure import ErasureRun
from erase.training.memory import GIB, MARGIN, Memory, estimate_memory
from erase.updates.lur import _hessian_vector_product
from pipelines.measure import peak_on_cpu
from tests.tiny import tiny_unet

TINY, KV = 64_796, 2_048
"""Parameters of the tiny UNet, and of its cross-attention's keys and values."""
STABLE_DIFFUSION_1 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
OTHERS = 4 * (83_653_863 + 123_060_480)
"""Bytes of its autoencoder and text encoder, in float32; a safety checker stays on the CPU."""


def run(**given: Any) -> ErasureRun:
    common = {"targets": [{"concept": "star"}], "output_dir": Path("unused"), "train_batch_size": 2}
    return build(ErasureRun, common | given)


def estimate(**given: Any) -> Memory:
    return estimate_memory(run(**given), tiny_unet, tokens=12)


def test_what_stays_is_counted_in_bytes() -> None:
    full = estimate(ema_decay=0.9)
    assert (full.weights, full.frozen_copy, full.gradients) == (4 * TINY, 4 * TINY, 4 * TINY)
    assert (full.moments, full.average) == (8 * TINY, 4 * TINY)
    sketch = sum(n if n <= 4096 else -(-n // 17) for n in (p.numel() for p in tiny_unet().parameters()))
    assert full.rule == 4 * TINY + 4 * 4 * sketch  # LUR's copy of the parameters, and four sketches
    assert estimate(update={"name": "weighted_sum"}).rule == 4 * 4 * sketch
    assert estimate(optimizer="sgd").moments == 4 * TINY
    assert estimate(optimizer="adamw8bit").moments == 2 * (TINY + TINY // 64)
    part = estimate(parameters={"name": "cross_attention_kv"})
    assert (part.weights, part.frozen_copy, part.gradients) == (4 * TINY, 4 * TINY, 4 * KV)


def test_an_adapter_needs_no_copy_and_half_of_the_frozen_weights() -> None:
    adapter = estimate(parameters={"name": "lora"})
    half = estimate(parameters={"name": "lora"}, mixed_precision="bf16")
    assert adapter.frozen_copy == half.frozen_copy == adapter.average == 0
    assert 0.45 * adapter.weights < half.weights < 0.7 * adapter.weights  # norms, biases of norms and adapter stay


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_simulated_pass_takes_what_a_real_one_does(precision: str, recomputed: bool) -> None:
    given = {"mixed_precision": precision, "gradient_checkpointing": recomputed, "train_batch_size": 4}
    estimated = estimate(**given).passes
    unet = tiny_unet().train(recomputed)
    if recomputed:
        unet.enable_gradient_checkpointing()
    noisy, states, timesteps = torch.randn(4, 4, 8, 8), torch.randn(4, 12, 16), torch.tensor([1, 2, 3, 4])
    for p in unet.parameters():
        p.grad = torch.zeros_like(p)

    def both() -> None:
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            predicted = unet(noisy, timesteps, states).sample
        loss = predicted.float().square().mean()
        del predicted
        loss.backward()

    assert estimated == pytest.approx(peak_on_cpu(both), rel=0.25)  # kernels take some memory of their own


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_gradient_of_a_gradient_takes_what_a_real_one_does(precision: str) -> None:
    exact = {"name": "lur", "mode": "exact"}
    estimated = estimate(update=exact, mixed_precision=precision, train_batch_size=4).passes
    in_turn = {"name": "alternating_steps", "rule": exact}
    assert estimate(update=in_turn, mixed_precision=precision, train_batch_size=4).passes == estimated
    unet = tiny_unet().eval()
    parameters = list(unet.parameters())
    noisy, states, timesteps = torch.randn(4, 4, 8, 8), torch.randn(4, 12, 16), torch.tensor([1, 2, 3, 4])
    for p in parameters:
        p.grad = torch.ones_like(p)

    def look() -> Iterator[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            predicted = unet(noisy, timesteps, states).sample
        yield predicted.float().square().mean()

    def product() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            _hessian_vector_product(look, parameters)

    assert estimated == pytest.approx(peak_on_cpu(product), rel=0.25)
    assert estimated > 1.5 * estimate(mixed_precision=precision, train_batch_size=4).passes


def test_a_larger_batch_takes_more_and_recomputing_less() -> None:
    one, eight = (estimate(train_batch_size=size).passes for size in (1, 8))
    assert 4 * one < eight < 8 * one + 4 * TINY
    assert estimate(train_batch_size=8, gradient_checkpointing=True).passes < eight


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"parameters": {"name": "lora"}, "train_batch_size": 4, "latents": {"batch_size": 4}}, 8),
        ({"parameters": {"name": "full"}, "train_batch_size": 4, "optimizer": "adamw8bit"}, 24),
    ],
    ids=["lora", "full"],
)
def test_stable_diffusion_1_at_512_pixels_fits(given: dict[str, Any], limit: int) -> None:
    """LUR with teacher distillation; a limit is in GiB and holds with the margin on top."""
    settings = run(mixed_precision="bf16", gradient_checkpointing=True, **given)
    found = estimate_memory(settings, lambda: UNet2DConditionModel(**STABLE_DIFFUSION_1), OTHERS)
    assert found.gradients == 4 * (859_520_964 if limit == 24 else found.gradients // 4)
    assert (1 + MARGIN) * found.peak < limit * GIB
    assert found.peak > limit * GIB / 2, "an estimate so low would have left something out"
