"""Which parameters of a model move, and the frozen reference beside them. Domain-free; the table is closed."""

from __future__ import annotations

from erase.parameters.reference import frozen_reference
from erase.parameters.selection import CrossAttention, CrossAttentionKV, Full, LoRA, NotCrossAttention, Trainable
from erase.parameters.storage import store_frozen

Parameters = Full | CrossAttention | CrossAttentionKV | NotCrossAttention | LoRA
PARAMETERS: dict[str, type[Parameters]] = {
    "full": Full,
    "cross_attention": CrossAttention,
    "cross_attention_kv": CrossAttentionKV,
    "not_cross_attention": NotCrossAttention,
    "lora": LoRA,
}

__all__ = [
    "PARAMETERS",
    "CrossAttention",
    "CrossAttentionKV",
    "Full",
    "LoRA",
    "NotCrossAttention",
    "Parameters",
    "Trainable",
    "frozen_reference",
    "store_frozen",
]
