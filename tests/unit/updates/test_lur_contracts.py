"""What LUR promises of every mode: parameters untouched, finite from the first step, blind to how a batch is cut."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from erase.protocols import UpdateState
from erase.randomness import derive
from erase.updates import LUR, WeightedSum
from erase.updates.alpha import AbsoluteAlpha, Alpha, CorrectionAlpha, DisplacementAlpha
from erase.updates.lur import coin
from tests.properties import assert_finite, assert_parameters_restored
from tests.unit.updates.problems import (
    BRANCHES,
    FAILURES,
    BrokenError,
    Network,
    Problem,
    bowls,
    break_at,
    flat_gradient,
    summed,
)

ALPHAS: list[Alpha] = [AbsoluteAlpha(value=0.1), DisplacementAlpha(ratio=0.01), CorrectionAlpha()]
MODES = ["chained", "exact", "alternating", "first_order"]


def lur(mode: Any, alpha: Alpha | None = None, measure_every: int = 0) -> LUR:
    return LUR(mode=mode, alpha=alpha or AbsoluteAlpha(value=0.1), measure_every=measure_every)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_parameters_are_restored_to_the_last_bit(mode: str, step: int, dtype: torch.dtype) -> None:
    problem = Network(dtype).problem()
    with assert_parameters_restored(problem.parameters):
        problem.run(lur(mode), step)


@pytest.mark.parametrize(("mode", "step", "nth"), FAILURES)
def test_parameters_are_restored_when_an_evaluation_raises(mode: str, step: int, nth: int) -> None:
    problem = Network(torch.float32).problem(micro_batches=2)
    break_at(problem, nth)
    with assert_parameters_restored(problem.parameters), pytest.raises(BrokenError):
        problem.run(lur(mode), step)


def test_adding_and_subtracting_a_shift_would_not_restore_them() -> None:
    parameters = Network(torch.float32).parameters()

    def there_and_back() -> None:
        with assert_parameters_restored(parameters):
            for p in parameters:
                shift = 0.1 * torch.rand_like(p)
                p.data.add_(shift).sub_(shift)

    with pytest.raises(AssertionError, match="differs by"):
        there_and_back()


@pytest.mark.parametrize("alpha", ALPHAS, ids=lambda alpha: alpha.name)
@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_is_its_own_teacher_trains_without_nan(mode: str, alpha: Alpha) -> None:
    problem, state, norms = Network(torch.float32).own_teacher(), UpdateState(), []
    for _ in range(6):
        seen = lur(mode, alpha, measure_every=2)(problem.retain, problem.forget, problem.parameters, state)
        assert_finite([flat_gradient(problem.parameters), torch.tensor([seen.cosine, seen.correction or 0.0])])
        norms.append(seen.retain_norm)
        problem.descend(0.05)
    assert norms[0] == 0.0 or mode == "alternating"
    assert norms[-1] > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_first_step_without_retain_gradient_is_the_forget_gradient(mode: str) -> None:
    problem = Network().own_teacher()
    forget_alone = Network().own_teacher().gradient(WeightedSum())
    rule = lur(mode, DisplacementAlpha())
    torch.testing.assert_close(problem.gradient(rule), forget_alone, rtol=0, atol=1e-15)


@pytest.mark.parametrize("alpha", ALPHAS, ids=lambda alpha: alpha.name)
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_two_zero_gradients_give_zero(mode: str, step: int, alpha: Alpha) -> None:
    parameters = [nn.Parameter(torch.ones(3))]
    flat_loss = summed(parameters, lambda theta: 0 * theta.square().sum())
    problem = Problem(parameters, flat_loss, flat_loss)
    seen = problem.run(lur(mode, alpha), step)
    assert flat_gradient(parameters).tolist() == [0.0, 0.0, 0.0]
    assert seen.cosine == 0.0


@pytest.mark.parametrize("micro_batches", [2, 3, 6])
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_micro_batches_give_the_gradient_of_the_whole_batch(mode: str, step: int, micro_batches: int) -> None:
    whole = Network().problem().gradient(lur(mode), step)
    cut = Network().problem(micro_batches).gradient(lur(mode), step)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-14)


def test_combining_per_micro_batch_would_be_another_algorithm() -> None:
    whole = Network().problem().gradient(lur("chained"))
    network = Network()
    parameters = network.parameters()
    combined = torch.zeros_like(whole)
    for part in (slice(0, 6), slice(6, 12)):
        half = Problem(
            parameters,
            summed(parameters, lambda theta, part=part: 2 * network.retain(theta, part)),
            summed(parameters, lambda theta, part=part: 2 * network.forget(theta, part)),
        )
        combined += half.gradient(lur("chained")) / 2
    assert (combined - whole).norm() > 1e-3 * whole.norm()


@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_gradients_left_from_before_do_not_enter(mode: str, step: int) -> None:
    problem = Network().problem()
    clean = problem.gradient(lur(mode), step)
    assert torch.equal(problem.gradient(lur(mode), step), clean)


@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_a_parameter_that_a_loss_does_not_reach_is_no_obstacle(mode: str, step: int) -> None:
    problem = bowls()
    used, idle = problem.parameters, nn.Parameter(torch.ones(2, dtype=torch.float64))
    expected = problem.gradient(lur(mode), step)
    problem.parameters = [*used, idle]
    assert problem.gradient(lur(mode), step).tolist() == [*expected.tolist(), 0.0, 0.0]


@pytest.mark.parametrize("mode", MODES)
def test_a_retain_loss_without_curvature_adds_no_correction(mode: str) -> None:
    parameters = [nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))]
    slope = torch.tensor([2.0, -1.0], dtype=torch.float64)
    linear = Problem(
        parameters,
        summed(parameters, lambda t: t @ slope),
        summed(parameters, lambda t: t @ slope.flip(0)),
    )
    torch.testing.assert_close(linear.gradient(lur(mode)), slope + slope.flip(0))


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (2, [1, 3, 5]), (4, [1, 5])])
@pytest.mark.parametrize("mode", ["alternating", "first_order"])
def test_the_correction_is_measured_every_so_many_steps(mode: str, every: int, expected: list[int]) -> None:
    problem, state = bowls(), UpdateState()
    rule = lur(mode, measure_every=every)
    seen = [rule(problem.retain, problem.forget, problem.parameters, state) for _ in range(7)]
    assert [step for step, diagnostics in enumerate(seen) if step and diagnostics.correction is not None] == expected


@pytest.mark.parametrize("mode", ["alternating", "first_order"])
def test_without_periodic_measures_alpha_still_has_its_first(mode: str) -> None:
    problem, state = bowls(), UpdateState()
    rule = lur(mode, CorrectionAlpha(), measure_every=0)
    seen = [rule(problem.retain, problem.forget, problem.parameters, state) for _ in range(9)]
    assert [step for step, diagnostics in enumerate(seen) if diagnostics.correction is not None] == [1, 2, 4, 8]
    assert state.alpha is not None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_coin_is_fair_and_its_throws_independent(seed: int) -> None:
    throws = [coin(UpdateState(seed=seed, step=step)) for step in range(2000)]
    five_sigma = 5 * (2000 * 0.25) ** 0.5
    assert abs(sum(throws) - 1000) < five_sigma
    assert abs(sum(a == b for a, b in itertools.pairwise(throws)) - 1000) < five_sigma


def test_the_coin_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = [coin(UpdateState(seed=5, step=step)) for step in range(50)]
    torch.rand(7)
    assert [coin(UpdateState(seed=5, step=step)) for step in range(50)] == first
    assert [coin(UpdateState(seed=6, step=step)) for step in range(50)] != first
    torch.set_rng_state(before)
    coin(UpdateState())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [2**40, 2**63 - 1, derive(0, "update")])
def test_the_coin_takes_any_seed_that_derive_can_give(seed: int) -> None:
    assert coin(UpdateState(seed=seed, step=3)) in (True, False)


@pytest.mark.parametrize("mode", MODES)
def test_a_state_restored_from_plain_numbers_continues_the_same_run(mode: str) -> None:
    rule, problem, state = lur(mode, CorrectionAlpha(), measure_every=2), Network().problem(), UpdateState(seed=4)
    for _ in range(4):
        rule(problem.retain, problem.forget, problem.parameters, state)
    restored = UpdateState(**asdict(state))
    assert state.step == 4
    for _ in range(3):
        assert rule(problem.retain, problem.forget, problem.parameters, state) == rule(
            problem.retain, problem.forget, problem.parameters, restored
        )
    assert restored == state
