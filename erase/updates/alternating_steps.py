"""A step to forget, then steps to retain: the fixed order that SFRon, SalUn and SCRUB train in, and of any rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.gradients import Parameters, clear
from erase.protocols import Diagnostics, Objective, UpdateRule, UpdateState
from erase.updates.lur import LUR, Combine
from erase.updates.two_objectives import gather_on_top, report


@dataclass(frozen=True, config=STRICT)
class AlternatingSteps:
    """g_f at the first step, g_r at the next `retain_steps`, and so on (SFRon, Huang et al., NeurIPS 2024).

    With a `rule`, its gradient in g_f's place: what it does to the retained is repaired by the steps that follow.
    One gradient evaluation a step, so that the budget of a plain sum makes twice the steps; for a rule's step, its own.
    Memory: one gradient, or the rule's. A step's log has the losses and norms that it looked at, and the cosine where
    a rule looked at both; the rest is there for probes alone.
    """

    name: Literal["alternating_steps"] = "alternating_steps"
    retain_steps: Annotated[
        int, Field(ge=1, description="retain steps after each forget step; SFRon: 5; SalUn and RL: n_retain / n_forget")
    ] = 1
    forget_until: Annotated[
        int | None, Field(ge=0, description="from this step on all steps retain, as SCRUB ends; null: never")
    ] = None
    rule: Annotated[
        Annotated[LUR | Combine, Field(discriminator="name")] | None,
        Field(description="what a step to forget follows; null: the forget gradient alone; a name alone will do"),
    ] = None

    @property
    def buffers(self) -> int:
        """None, or the rule's."""
        return 0 if self.rule is None else self.rule.buffers

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        """Leaves the gradient of this step's objective in ``.grad``, or the rule's."""
        if self.rule is not None and self.forgets(state.step):
            return self.follow(self.rule, retain, forget, parameters, state)
        clear(parameters)
        if self.forgets(state.step):
            return report(None, gather_on_top(forget, parameters), state, evaluations=1)
        return report(gather_on_top(retain, parameters), None, state, evaluations=1)

    def follow(
        self, rule: UpdateRule, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState
    ) -> Diagnostics:
        """A step of the rule, which counts its own."""
        step = state.step
        state.step = self.forgot(step)
        seen = rule(retain, forget, parameters, state)
        state.step = step + 1
        return seen

    def looked(self, step: int) -> tuple[int, int]:
        """How many of the steps before this one looked at what is retained, and how many at what is forgotten."""
        forgot = self.forgot(step)
        return step - (forgot if self.rule is None else 0), forgot

    def forgot(self, step: int) -> int:
        """How many of the steps before this one were to forget."""
        last = step if self.forget_until is None else min(step, self.forget_until)
        return -(-last // (1 + self.retain_steps))

    def forgets(self, step: int) -> bool:
        """Whether a step, counted from 0, is one to forget."""
        return step % (1 + self.retain_steps) == 0 and (self.forget_until is None or step < self.forget_until)
