"""A problem whose gradients conflict, and whose rows can be cut among processes."""

from __future__ import annotations

from torch import Tensor

from tests.unit.updates.problems import ROWS, Network, Problem, summed


class Opposed(Network):
    """The network, to be led away from what the forget loss fits: the cosine at the start is -0.66."""

    def forget(self, theta: Tensor, part: slice = slice(None)) -> Tensor:
        """The negated loss."""
        return -super().forget(theta, part)

    def share(self, rank: int, processes: int) -> Problem:
        """One process's part of the rows, each loss the mean over that part."""
        parameters = self.parameters()
        size = ROWS // processes
        part = slice(rank * size, (rank + 1) * size)
        return Problem(
            parameters,
            summed(parameters, lambda theta: processes * self.retain(theta, part)),
            summed(parameters, lambda theta: processes * self.forget(theta, part)),
        )
