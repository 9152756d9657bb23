"""How the two gradients lie to each other: overall, by block, and before and after an update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erase.gradients import Parameters, clear, cosine, sketch_spans
from erase.protocols import Diagnostics, Objective
from erase.updates.two_objectives import gather_on_top


class Blocks:
    """Which entries of a sketch belong to which part of the model."""

    def __init__(self, parameters: Parameters, labels: Sequence[str]) -> None:
        self.spans: dict[str, list[slice]] = {}
        for label, span in zip(labels, sketch_spans(parameters), strict=True):
            self.spans.setdefault(label, []).append(span)

    def cosines(self, seen: Diagnostics) -> dict[str, float]:
        """``cosine/BLOCK`` of a step, for each block; nothing if the step looked at one gradient only."""
        retain, forget = seen.sketches
        if retain is None or forget is None:
            return {}
        return {
            f"cosine/{label}": cosine(torch.cat([retain[s] for s in spans]), torch.cat([forget[s] for s in spans]))
            for label, spans in self.spans.items()
        }

    def inner_products(self, retain: Tensor, forget: Tensor, name: str, weight: float) -> dict[str, float]:
        """``NAME`` and ``NAME/BLOCK``: <g_f, g_r> with the forget weight taken out."""
        products = (retain.double() * forget.double()) / weight
        blocks = {
            f"{name}/{label}": sum(products[s].sum().item() for s in spans) for label, spans in self.spans.items()
        }
        return {name: products.sum().item(), **blocks}


def probe(retain: Objective, forget: Objective, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Sketches of both gradients at the parameters' present values; two evaluations, no gradient is left behind."""
    sketches = []
    for objective in (retain, forget):
        clear(parameters)
        sketches.append(gather_on_top(objective, parameters).sketch)
    clear(parameters)
    return sketches[0], sketches[1]
