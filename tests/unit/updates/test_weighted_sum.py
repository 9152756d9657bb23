"""The plain sum of two gradients, by hand."""

from __future__ import annotations

import pytest
import torch

from erase.protocols import UpdateState
from erase.updates import UPDATES, WeightedSum
from tests.properties import assert_parameters_restored
from tests.unit.updates.problems import Network, Problem, bowls, flat, flat_gradient


def test_gradient_is_the_one_worked_by_hand() -> None:
    # at (1, 2): g_r + g_f = (2, 2) + (-3, 4)
    assert bowls().gradient(WeightedSum()).tolist() == [-1.0, 6.0]


def test_diagnostics_are_the_ones_worked_by_hand() -> None:
    seen = bowls().run(WeightedSum())
    assert (seen.retain_loss, seen.forget_loss) == (3.0, 3.5)  # (2 + 4) / 2 and (3 + 4) / 2
    assert seen.retain_norm == pytest.approx(8**0.5)
    assert seen.forget_norm == pytest.approx(5.0)
    assert seen.cosine == pytest.approx(2 / (5 * 8**0.5))  # <(2, 2), (-3, 4)> = 2
    assert seen.evaluations == 2
    assert seen.alpha is None
    assert seen.correction is None


def test_it_is_the_gradient_of_the_sum_of_the_losses() -> None:
    network = Network()
    theta = flat(network.parameters()).detach()
    expected = torch.func.grad(lambda t: network.retain(t) + network.forget(t))(theta)
    torch.testing.assert_close(network.problem().gradient(WeightedSum()), expected, rtol=0, atol=1e-14)


def test_the_order_of_the_objectives_does_not_matter() -> None:
    problem = Network().problem()
    swapped = Problem(problem.parameters, problem.forget, problem.retain)
    assert torch.equal(problem.gradient(WeightedSum()), swapped.gradient(WeightedSum()))


def test_each_objective_is_evaluated_once_and_the_parameters_are_not_moved() -> None:
    problem, calls = bowls(), []
    retain, forget = problem.retain, problem.forget
    problem.retain = lambda: calls.append("retain") or retain()
    problem.forget = lambda: calls.append("forget") or forget()
    with assert_parameters_restored(problem.parameters):
        problem.run(WeightedSum())
    assert sorted(calls) == ["forget", "retain"]


def test_the_state_learns_the_norms_and_counts_the_step() -> None:
    problem, state = bowls(), UpdateState()
    for _ in range(2):
        seen = WeightedSum()(problem.retain, problem.forget, problem.parameters, state)
    assert (state.step, state.conflicts) == (2, 0)
    assert (state.retain_norm, state.forget_norm) == (seen.retain_norm, seen.forget_norm)
    assert flat_gradient(problem.parameters).tolist() == [-1.0, 6.0]  # not twice that


def test_the_table_finds_each_rule_under_its_own_name() -> None:
    assert {name: cls().name for name, cls in UPDATES.items()} == {name: name for name in UPDATES}
