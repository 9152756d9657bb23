"""Which parameters of a model move: by name, or as an added LoRA adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from erase.components import STRICT
from erase.errors import UserError

Trainable = dict[str, nn.Parameter]
CROSS_ATTENTION = ".attn2."
ESD_KEPT = ("conv_out.", "conv_norm_out.", "time_embedding.")
"""What ESD's `noxattn` leaves alone besides cross-attention: CompVis' `out.` and `time_embed`."""


def select_by_name(model: nn.Module, wanted: Callable[[str], bool], rule: str) -> Trainable:
    """Freezes the model but for the parameters whose name is wanted; none at all is an error."""
    model.requires_grad_(False)
    chosen = {name: p for name, p in model.named_parameters() if wanted(name)}
    if not chosen:
        raise UserError(f"parameters.name: {rule} matches none of the {type(model).__name__}'s parameters")
    for p in chosen.values():
        p.requires_grad_(True)
    return chosen


@dataclass(frozen=True, config=STRICT)
class Full:
    """Every parameter."""

    name: Literal["full"] = "full"

    def select(self, model: nn.Module) -> Trainable:
        """All of them."""
        return select_by_name(model, lambda _: True, self.name)


@dataclass(frozen=True, config=STRICT)
class CrossAttention:
    """The cross-attention layers, as ESD-x: they read the prompt."""

    name: Literal["cross_attention"] = "cross_attention"

    def select(self, model: nn.Module) -> Trainable:
        """Names that contain ``.attn2.``."""
        return select_by_name(model, lambda name: CROSS_ATTENTION in name, self.name)


@dataclass(frozen=True, config=STRICT)
class CrossAttentionKV:
    """Cross-attention's key and value projections, as UCE and Concept Ablation."""

    name: Literal["cross_attention_kv"] = "cross_attention_kv"

    def select(self, model: nn.Module) -> Trainable:
        """Names that contain ``.attn2.to_k.`` or ``.attn2.to_v.``."""
        parts = (f"{CROSS_ATTENTION}to_k.", f"{CROSS_ATTENTION}to_v.")
        return select_by_name(model, lambda name: any(part in name for part in parts), self.name)


@dataclass(frozen=True, config=STRICT)
class NotCrossAttention:
    """All but cross-attention, the output convolution and the time embedding, as ESD-u."""

    name: Literal["not_cross_attention"] = "not_cross_attention"

    def select(self, model: nn.Module) -> Trainable:
        """Names without ``.attn2.`` that do not start as ESD's kept ones do."""

        def wanted(name: str) -> bool:
            return CROSS_ATTENTION not in name and not name.startswith(ESD_KEPT)

        return select_by_name(model, wanted, self.name)


@dataclass(frozen=True, config=STRICT)
class LoRA:
    """A low-rank adapter (Hu et al. 2021) beside frozen weights: W + (alpha / rank) B A."""

    name: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1, description="rank of the update")] = 8
    alpha: Annotated[float, Field(gt=0, description="scale: the update is multiplied by alpha / rank")] = 8.0
    target_modules: Annotated[
        tuple[str, ...], Field(min_length=1, description="endings of the names of the layers that get an adapter")
    ] = ("to_q", "to_k", "to_v", "to_out.0")

    def select(self, model: nn.Module) -> Trainable:
        """Adds the adapter, in place; B starts at zero, so the model is unchanged."""
        from peft import LoraConfig

        targets = list(self.target_modules)
        missing = [t for t in targets if not any(f".{n}".endswith(f".{t}") for n, _ in model.named_modules())]
        if missing:
            raise UserError(f"parameters.target_modules: {', '.join(missing)} matches no layer of the model")
        model.requires_grad_(False)
        try:
            model.add_adapter(LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets))  # type: ignore[operator]
        except ValueError as error:
            raise UserError(f"parameters.target_modules: {', '.join(targets)}: {error}") from None
        return {name: p for name, p in model.named_parameters() if p.requires_grad}
