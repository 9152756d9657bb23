"""The factor on fp16 losses that keeps small gradients from vanishing and large ones from overflowing."""

from __future__ import annotations

from dataclasses import dataclass

LEAST, MOST = 1.0, 2.0**24
GROWTH_STEPS = 2000
"""Finite steps in a row after which the scale doubles, as in torch's GradScaler."""


@dataclass
class LossScale:
    """A power of two: multiplying by it and dividing again rounds nothing (Micikevicius et al., ICLR 2018)."""

    value: float = 2.0**16
    finite_steps: int = 0
    """Finite steps since the scale last changed."""

    def learn(self, finite: bool) -> bool:
        """Halves the scale after a gradient that is not finite; ``False`` if it cannot be any smaller."""
        if not finite:
            self.value, self.finite_steps = self.value / 2, 0
            return self.value >= LEAST
        self.finite_steps += 1
        if self.finite_steps == GROWTH_STEPS:
            self.value, self.finite_steps = min(MOST, 2 * self.value), 0
        return True
