"""What rules share that combine the two gradients by weights taken from their 2x2 Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erase.gradients import Parameters, over_shards
from erase.inner_products import Gram, inner_products
from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates.two_objectives import one_after_the_other, report

Weights = tuple[float, float]
"""Factors on g_r and on g_f."""


def gram_of(retain: Sequence[Tensor], forget: Sequence[Tensor]) -> Gram:
    """The Gram matrix of two gradients; where each process has the gradients of its rows, still that of the whole."""
    return Gram(*over_shards(inner_products(retain, forget)).tolist())


class GramRule:
    """w_r g_r + w_f g_f with weights that depend on the Gram matrix alone.

    Two gradient evaluations a step. Memory: two gradients, no copy of the parameters.
    """

    def weights(self, gram: Gram) -> Weights:
        """The two factors; finite for every Gram matrix whose entries neither overflow nor underflow."""
        raise NotImplementedError

    @property
    def buffers(self) -> int:
        """The other gradient."""
        return 1

    @torch.no_grad()
    def combine(self, retain: Sequence[Tensor], forget: Sequence[Tensor], state: UpdateState) -> None:
        """Puts the combination in place of ``forget``."""
        w_retain, w_forget = self.weights(gram_of(retain, forget))
        torch._foreach_mul_(list(forget), w_forget)
        torch._foreach_add_(list(forget), list(retain), alpha=w_retain)

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the combination in ``.grad``."""
        kept, ahead = one_after_the_other(retain, forget, parameters, state, self)
        return report(kept, ahead, state, evaluations=2)
