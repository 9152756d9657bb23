"""What a run cost, over all its parts and processes: a resumed run counts on from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Counts of a run up to a step."""

    gradient_evaluations: int = 0
    """Forward and backward passes over one objective's batch."""
    model_evaluations: int = 0
    """Examples that the model was evaluated on, the frozen base's among them, over all processes."""
    seconds: float = 0.0
    """Time in the loop."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.gradient_evaluations + other.gradient_evaluations,
            self.model_evaluations + other.model_evaluations,
            self.seconds + other.seconds,
        )
