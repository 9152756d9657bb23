"""Three ways to set alpha, the length of LUR's look-ahead, in parameter units per unit gradient."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, parameter_norm
from erase.protocols import Diagnostics, UpdateState

START = 1e-6
"""The controller's first displacement, as a share of ||theta||."""


@dataclass(frozen=True, config=STRICT)
class AbsoluteAlpha:
    """The paper's: one number for all steps. Its right size depends on the losses' scale and curvature."""

    name: Literal["absolute"] = "absolute"
    value: Annotated[float, Field(ge=0, description="alpha, in parameter units per unit gradient")] = 0.01

    def choose(self, parameters: Parameters, state: UpdateState) -> float:
        """alpha = value."""
        return self.value

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, config=STRICT)
class DisplacementAlpha:
    """The look-ahead moves the parameters by a set share of their norm, as SAM's rho does.

    alpha = ratio ||theta|| / max(||g_r||, ||g_f||), with the norms of the step before; the larger of the two
    because `chained` shifts along both (`alternating` shifts twice as far, along one). 0 at the first step,
    which is thus a plain sum.
    """

    name: Literal["displacement"] = "displacement"
    ratio: Annotated[float, Field(gt=0, le=1, description="share of ||theta|| that the look-ahead moves")] = 1e-4

    def choose(self, parameters: Parameters, state: UpdateState) -> float:
        """The alpha whose shift is `ratio` of the parameters' norm."""
        largest = max(state.retain_norm, state.forget_norm)
        return self.ratio * parameter_norm(parameters) / largest if largest > 0 else 0.0

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, config=STRICT)
class CorrectionAlpha:
    """LUR's correction is held to a set share of the plain sum's norm, by a controller.

    The correction grows as alpha, so after each step that measured it
    alpha <- alpha * clip(sqrt(ratio / measured), 1/2, 2). The first step is a plain sum; the second starts
    with a displacement of 1e-6, which can double every step. By the norms of the step before, alpha never
    displaces the parameters by more than `max_displacement`.
    """

    name: Literal["correction"] = "correction"
    ratio: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="||alpha H_r g_f|| / ||g_r + g_f|| to hold: the half of the correction that is known",
        ),
    ] = 0.1
    max_displacement: Annotated[
        float, Field(gt=0, le=1, description="largest share of ||theta|| that the look-ahead may move")
    ] = 1e-3

    def choose(self, parameters: Parameters, state: UpdateState) -> float:
        """The controlled alpha, within the largest displacement."""
        limit = DisplacementAlpha(ratio=self.max_displacement).choose(parameters, state)
        start = limit * min(1.0, START / self.max_displacement)
        return start if state.alpha is None else min(state.alpha, limit)

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Moves alpha towards the ratio; a step without look-ahead or without a measure teaches nothing."""
        if seen.alpha and seen.correction is not None:
            wanted = (self.ratio / seen.correction) ** 0.5 if seen.correction != 0 else 2.0  # lost in rounding
            state.alpha = seen.alpha * min(2.0, max(0.5, wanted))


Alpha = AbsoluteAlpha | DisplacementAlpha | CorrectionAlpha
