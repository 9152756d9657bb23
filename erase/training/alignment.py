"""How the two gradients lie to each other: overall, by block, and before and after an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from erase.gradients import Parameters, clear, sketch_spans
from erase.inner_products import cosine, gram_of_sketches
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import gather_on_top, ratio


class Blocks:
    """Which entries of a sketch belong to which part of the model."""

    def __init__(self, parameters: Parameters, labels: Sequence[str]) -> None:
        self.spans: dict[str, list[slice]] = {}
        for label, span in zip(labels, sketch_spans(parameters), strict=True):
            found = self.spans.setdefault(label, [])
            joined = bool(found) and found[-1].stop == span.start
            found.append(slice(found.pop().start, span.stop) if joined else span)

    def part(self, sketch: Tensor, label: str) -> Tensor:
        """The entries of a block."""
        return torch.cat([sketch[span] for span in self.spans[label]])

    def numbers(self, seen: Diagnostics, weight: float) -> dict[str, float]:
        """``NAME/BLOCK`` for each block of what a step saw: norms, cosine and correction over its entries alone.

        As overall, the forget norm is without its weight. What the step did not look at is left out.
        """
        found: dict[str, float] = {}
        for label in self.spans:
            sketches = (*seen.sketches, *(seen.correction_sketches or (None, None)))
            retain, forget, change, whole = (None if s is None else self.part(s, label) for s in sketches)
            if retain is not None:
                found[f"retain_norm/{label}"] = retain.norm().item()
            if forget is not None:
                found[f"forget_norm/{label}"] = forget.norm().item() / weight
            if retain is not None and forget is not None:
                found[f"cosine/{label}"] = cosine(retain, forget)
            if change is not None and whole is not None:
                found[f"correction/{label}"] = ratio(change, whole)
        return found

    def count_conflicts(self, numbers: Mapping[str, float], state: UpdateState) -> None:
        """Adds the blocks whose ``cosine/BLOCK`` is below zero to those that the state has counted."""
        before = state.block_conflicts
        state.block_conflicts = {
            label: before.get(label, 0) + int(numbers.get(f"cosine/{label}", 0.0) < 0) for label in self.spans
        }

    def conflict_shares(self, state: UpdateState) -> dict[str, float]:
        """``conflict_share/BLOCK`` of the steps so far that had a cosine; nothing before the first."""
        if not state.cosines:
            return {}
        return {f"conflict_share/{label}": state.block_conflicts.get(label, 0) / state.cosines for label in self.spans}

    def probed(self, retain: Tensor, forget: Tensor, when: str, weight: float) -> dict[str, float]:
        """``inner_WHEN`` and ``cosine_WHEN`` of two sketches, and each ``/BLOCK``; the forget weight is taken out."""
        pairs = {"": (retain, forget)}
        pairs |= {f"/{label}": (self.part(retain, label), self.part(forget, label)) for label in self.spans}
        found: dict[str, float] = {}
        for suffix, (r, f) in pairs.items():
            gram = gram_of_sketches(r, f)
            found |= {f"inner_{when}{suffix}": gram.inner / weight, f"cosine_{when}{suffix}": gram.cosine}
        return found


def probe(retain: Objective, forget: Objective, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Sketches of both gradients at the parameters' present values; two evaluations, no gradient is left behind."""
    sketches = []
    for objective in (retain, forget):
        clear(parameters)
        sketches.append(gather_on_top(objective, parameters).sketch)
    clear(parameters)
    return sketches[0], sketches[1]
