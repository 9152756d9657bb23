"""Pairs of gradients that two-gradient rules are tried on: how they lie to each other, and how long they are."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from erase.updates.gram import GramRule, gram_of

KINDS = ["random", "aligned", "orthogonal", "opposed", "retain zero", "forget zero", "equal"]
ENTRIES = 5
many = settings(max_examples=40 * len(KINDS))
"""For tests of a millisecond: some 40 pairs of each kind."""


def pair(kind: str, seed: int, retain_exponent: float, forget_exponent: float) -> tuple[Tensor, Tensor]:
    """Two float64 gradients of the norms 10^exponent; a zero is zero, and of equal ones the retain norm counts."""
    source = torch.Generator().manual_seed(seed)
    retain, other = (torch.randn(ENTRIES, generator=source, dtype=torch.float64) for _ in range(2))
    retain /= retain.norm()
    forget = {
        "aligned": retain,
        "equal": retain,
        "opposed": -retain,
        "orthogonal": other - torch.dot(other, retain) * retain,
    }.get(kind, other)
    retain_norm, forget_norm = 10**retain_exponent, 10**forget_exponent
    if kind == "equal":
        forget_norm = retain_norm
    lengths = (0.0 if kind == "retain zero" else retain_norm, 0.0 if kind == "forget zero" else forget_norm)
    return lengths[0] * retain, lengths[1] * forget / forget.norm()


def pairs(kinds: list[str], exponent: float, ratio: float) -> st.SearchStrategy[tuple[Tensor, Tensor]]:
    """Pairs whose retain norm is 10^(-exponent to exponent), the forget norm 10^(-ratio to ratio) times that."""
    scale = st.floats(-exponent, exponent)
    tilt = st.floats(-ratio, ratio)
    return st.builds(
        lambda kind, seed, size, lean: pair(kind, seed, size, size + lean),
        st.sampled_from(kinds),
        st.integers(0, 10**6),
        scale,
        tilt,
    )


def weights_of(rule: GramRule, retain: Tensor, forget: Tensor) -> tuple[float, float]:
    """The rule's factors for two gradients."""
    return rule.weights(gram_of([retain], [forget]))


def combination(rule: GramRule, retain: Tensor, forget: Tensor) -> tuple[Tensor, float]:
    """What the rule makes of two gradients, and the length of its two parts together."""
    w_retain, w_forget = weights_of(rule, retain, forget)
    parts = w_retain * retain, w_forget * forget
    return parts[0] + parts[1], sum(part.norm().item() for part in parts)
