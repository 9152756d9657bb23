"""Three ways to set alpha, the length of LUR's look-ahead, in parameter units per unit gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, parameter_norm
from erase.protocols import Diagnostics, UpdateState
from erase.updates.two_objectives import LookAhead

LOOK = 1e-4
"""How far the look that finds alpha goes, as a share of ||theta||: short, as the correction grows as alpha nearby, but
long enough to show in bf16."""
FAR = math.log(1e5)
"""How far from the ratio a measure may be: of a look that shows nothing, alpha is then for the bound to cut."""
EARLY = (1, 2, 4, 8, 16)
"""Steps done before those that measure what they would not by the way."""
Look = Callable[[LookAhead], Diagnostics]
"""A step that measures its correction, and neither moves the weights nor counts."""


@dataclass(frozen=True, config=STRICT)
class AbsoluteAlpha:
    """The paper's: one number for all steps. Its right size depends on the losses' scale and curvature."""

    name: Literal["absolute"] = "absolute"
    value: Annotated[float, Field(ge=0, description="alpha, in parameter units per unit gradient")] = 0.01

    def seek(self, parameters: Parameters, state: UpdateState, look: Look) -> int:
        """Nothing to find."""
        return 0

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

    def seek(self, parameters: Parameters, state: UpdateState, look: Look) -> int:
        """Nothing to find."""
        return 0

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

    Before the first step one look at its batch finds alpha, while the weights stay: it displaces the parameters by 1e-4
    of their norm, and with f = ratio / measured alpha <- alpha * f, as if the correction grew as alpha. Later
    measures are as noisy as their batches: alpha <- alpha * clip(sqrt(f), 1/2, 2); but a correction of more than four
    times the ratio is no noise, and alpha <- alpha * max(f, 1/100), as it grows at least as alpha does. alpha times the
    larger gradient is never longer than `max_displacement` of the parameters, by the norms of the step before and again
    by the step's own, as a forget gradient may grow a thousandfold in one step (`alternating` shifts by twice alpha).
    What was learned outlives such a cut, unless the correction is too large even so.
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
    ] = 1e-2

    def seek(self, parameters: Parameters, state: UpdateState, look: Look) -> int:
        """Finds alpha before the first step that has a gradient to follow; gives the evaluations that it took."""
        seen = look(LookAhead(math.inf, min(LOOK, self.max_displacement) * parameter_norm(parameters)))
        state.retain_norm, state.forget_norm = seen.retain_norm or 0.0, seen.forget_norm or 0.0
        if seen.alpha and seen.correction is not None:
            state.alpha = seen.alpha * math.exp(-self._miss(seen.correction))
        return seen.evaluations

    def choose(self, parameters: Parameters, state: UpdateState) -> LookAhead:
        """The controlled alpha, within the largest displacement."""
        limit = DisplacementAlpha(ratio=self.max_displacement).choose(parameters, state)
        return LookAhead(min(state.alpha or 0.0, limit.alpha), limit.longest)

    def wants_measure(self, state: UpdateState) -> bool:
        """Often at first: what is known by heart has next to no gradient, and a step later a large one."""
        return state.step in EARLY

    def learn(self, state: UpdateState, seen: Diagnostics) -> None:
        """Moves alpha towards the ratio; a step without look-ahead or without a measure teaches nothing."""
        if seen.alpha and seen.correction is not None:
            factor = math.exp(-self._miss(seen.correction))
            found = seen.alpha * (max(0.01, factor) if factor < 1 / 4 else min(2.0, max(0.5, factor**0.5)))
            cut_short = seen.alpha < (state.alpha or 0.0) and factor >= 1
            state.alpha = max(found, state.alpha or 0.0) if cut_short else found

    def _miss(self, correction: float) -> float:
        """log(correction / ratio), in bounds: 0 is lost in rounding, and what is not finite is far too large."""
        if not math.isfinite(correction):
            return FAR
        return max(-FAR, min(FAR, math.log(correction / self.ratio))) if correction > 0 else -FAR


Alpha = AbsoluteAlpha | DisplacementAlpha | CorrectionAlpha
