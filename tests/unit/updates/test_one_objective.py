"""The rules that look at one objective alone, by hand."""

from __future__ import annotations

import pytest

from erase.protocols import Objective, UpdateRule, UpdateState
from erase.updates import ForgetOnly, RetainOnly
from tests.properties import assert_parameters_restored
from tests.unit.updates.problems import bowls, flat_gradient

BOTH: list[UpdateRule] = [RetainOnly(), ForgetOnly()]


def untouchable() -> Objective:
    def objective() -> object:
        raise AssertionError("this objective was looked at")

    return objective  # type: ignore[return-value]


def test_retain_only_leaves_the_retain_gradient() -> None:
    problem = bowls()
    with assert_parameters_restored(problem.parameters):
        assert problem.gradient(RetainOnly()).tolist() == [2.0, 2.0]


def test_forget_only_leaves_the_forget_gradient() -> None:
    problem = bowls()
    with assert_parameters_restored(problem.parameters):
        assert problem.gradient(ForgetOnly()).tolist() == [-3.0, 4.0]


def test_the_other_objective_is_never_called() -> None:
    problem = bowls()
    RetainOnly()(problem.retain, untouchable(), problem.parameters, UpdateState())
    ForgetOnly()(untouchable(), problem.forget, problem.parameters, UpdateState())


@pytest.mark.parametrize("rule", BOTH, ids=["retain_only", "forget_only"])
def test_a_second_step_does_not_add_to_the_first(rule: UpdateRule) -> None:
    problem, state = bowls(), UpdateState()
    found = []
    for _ in range(2):
        rule(problem.retain, problem.forget, problem.parameters, state)
        found.append(flat_gradient(problem.parameters).tolist())
    assert found[0] == found[1]
    assert (state.step, state.conflicts, state.cosines, state.conflict_share) == (2, 0, 0, None)


@pytest.mark.parametrize("rule", BOTH, ids=["retain_only", "forget_only"])
def test_one_evaluation_a_step_and_no_buffer(rule: UpdateRule) -> None:
    assert (bowls().run(rule).evaluations, rule.buffers) == (1, 0)


def test_what_is_not_looked_at_is_none() -> None:
    kept, forgotten = (bowls().run(rule) for rule in BOTH)
    assert (kept.retain_loss, kept.retain_norm) == pytest.approx((3.0, 8**0.5))  # (2 + 4) / 2, |(2, 2)|
    assert (forgotten.forget_loss, forgotten.forget_norm) == (3.5, 5.0)  # (3 + 4) / 2, |(-3, 4)|
    assert (kept.forget_loss, kept.forget_norm, kept.cosine, kept.alpha, kept.correction) == (None,) * 5
    assert (forgotten.retain_loss, forgotten.retain_norm, forgotten.cosine, forgotten.alpha) == (None,) * 4
    assert [s is None for s in (*kept.sketches, *forgotten.sketches)] == [False, True, True, False]
