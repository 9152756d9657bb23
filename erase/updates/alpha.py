"""Three ways to set alpha, the length of LUR's look-ahead, in parameter units per unit gradient."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, parameter_norm
from erase.protocols import Diagnostics, UpdateState
from erase.updates.two_objectives import LookAhead

START = 1e-6
"""The controller's first displacement, as a share of ||theta||."""
LOOKS = 4
"""Measures that find the correction's order of magnitude; those after them follow it."""


@dataclass(frozen=True, config=STRICT)
class AbsoluteAlpha:
    """The paper's: one number for all steps. Its right size depends on the losses' scale and curvature."""

    name: Literal["absolute"] = "absolute"
    value: Annotated[float, Field(ge=0, description="alpha, in parameter units per unit gradient")] = 0.01

    def choose(self, parameters: Parameters, state: UpdateState) -> LookAhead:
        """alpha = value, however far it goes."""
        return LookAhead(self.value)

    def wants_measure(self, state: UpdateState) -> bool:
        """Never."""
        return False

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, config=STRICT)
class DisplacementAlpha:
    """The look-ahead moves the parameters by a set share of their norm, as SAM's rho does.

    alpha = ratio ||theta|| / max(||g_r||, ||g_f||), with the norms of the step before; the larger of the two
    because `chained` shifts along both (`alternating` shifts twice as far, along one). 0 at the first step,
    which is thus a plain sum. A gradient that has grown since is not followed further: its shift is cut to the ratio.
    """

    name: Literal["displacement"] = "displacement"
    ratio: Annotated[float, Field(gt=0, le=1, description="share of ||theta|| that the look-ahead moves")] = 1e-4

    def choose(self, parameters: Parameters, state: UpdateState) -> LookAhead:
        """The alpha whose shift is `ratio` of the parameters' norm."""
        largest, longest = max(state.retain_norm, state.forget_norm), self.ratio * parameter_norm(parameters)
        return LookAhead(longest / largest if largest > 0 else 0.0, longest)

    def wants_measure(self, state: UpdateState) -> bool:
        """Never."""
        return False

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, config=STRICT)
class CorrectionAlpha:
    """LUR's correction is held to a set share of the plain sum's norm, by a controller.

    The first step is a plain sum; the second displaces the parameters by 1e-6 of their norm. The correction grows
    as alpha, so with f = ratio / measured the first four measures set alpha <- alpha * min(f / 2, 100) while
    f > 4, which takes it near the ratio at once; else, and in all later steps, whose measures are as noisy as their
    batches, alpha <- alpha * clip(sqrt(f), 1/2, 2). alpha times the larger gradient is never longer than
    `max_displacement` of the parameters, by the norms of the step before and again by the step's own, as a forget
    gradient may grow a thousandfold in one step (`alternating` shifts by twice alpha). What was learned outlives such
    a cut, unless the correction is too large even so; a cut measure is one of the four none the less, so that they end.
    """

    name: Literal["correction"] = "correction"
    ratio: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="||alpha H_r g_f|| / ||g_r + g_f|| to hold: the half of the correction that is known; in bf16 "
            "rounding alone looks like 0.01 to 0.04 of it, so a ratio below 0.05 follows noise there",
        ),
    ] = 0.1
    max_displacement: Annotated[
        float,
        Field(
            gt=0, le=1, description="largest share of ||theta|| that the look-ahead may move (alternating: twice that)"
        ),
    ] = 1e-3

    def choose(self, parameters: Parameters, state: UpdateState) -> LookAhead:
        """The controlled alpha, within the largest displacement."""
        limit = DisplacementAlpha(ratio=self.max_displacement).choose(parameters, state)
        start = limit.alpha * min(1.0, START / self.max_displacement)
        return LookAhead(start if state.alpha is None else min(state.alpha, limit.alpha), limit.longest)

    def wants_measure(self, state: UpdateState) -> bool:
        """Until the order of magnitude is found."""
        return state.looks < LOOKS

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Moves alpha towards the ratio; a step without look-ahead or without a measure teaches nothing."""
        if seen.alpha and seen.correction is not None:
            factor = self.ratio / seen.correction if seen.correction != 0 else math.inf  # lost in rounding
            far = self.wants_measure(state) and factor > 4
            found = seen.alpha * (min(100.0, factor / 2) if far else min(2.0, max(0.5, factor**0.5)))
            cut_short = seen.alpha < (state.alpha or 0.0) and factor >= 1
            state.alpha = max(found, state.alpha or 0.0) if cut_short else found
            state.looks += 1


Alpha = AbsoluteAlpha | DisplacementAlpha | CorrectionAlpha
