"""The three ways to set the look-ahead's length: known values, and a controller that holds its ratio."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from erase.protocols import Diagnostics, Objective, UpdateState
from erase.updates import LUR, WeightedSum
from erase.updates.alpha import LOOK, AbsoluteAlpha, CorrectionAlpha, DisplacementAlpha
from erase.updates.two_objectives import LookAhead
from tests.unit.updates.problems import Network, Problem, bowls, flat, summed

NORMS = st.floats(1e-6, 1e6)


def three_four() -> list[nn.Parameter]:
    """||theta|| = 5, in two tensors."""
    return [nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([[4.0]]))]


def measured(correction: float | None, alpha: float | None = 0.01) -> Diagnostics:
    return Diagnostics(0.0, 0.0, 1.0, 1.0, 0.0, 3, alpha=alpha, correction=correction)


def steep() -> Problem:
    """||theta|| = 5; g_r = (300, 8) at every look-ahead's start, far longer than g_f = (1, -2)."""
    parameters = three_four()
    curvature, slope = torch.tensor([100.0, 2.0]), torch.tensor([1.0, -2.0])
    retain = summed(parameters, lambda t: (curvature * t * t).sum() / 2)
    return Problem(parameters, retain, summed(parameters, lambda t: t @ slope))


def simulate(rule: LUR, problem: Problem, steps: int, rate: float = 0.0) -> tuple[list[Diagnostics], UpdateState]:
    """What the rule sees on each of so many gradient-descent steps."""
    state, seen = UpdateState(), []
    for _ in range(steps):
        seen.append(rule(problem.retain, problem.forget, problem.parameters, state))
        problem.descend(rate)
    return seen, state


def test_absolute_alpha_is_its_value_and_learns_nothing() -> None:
    state = UpdateState(alpha=3.0, retain_norm=7.0, forget_norm=9.0)
    alpha = AbsoluteAlpha(value=0.25)
    alpha.learn(state, measured(5.0))
    assert alpha.choose(three_four(), state) == LookAhead(0.25)
    assert state == UpdateState(alpha=3.0, retain_norm=7.0, forget_norm=9.0)


@pytest.mark.parametrize(("retain_norm", "forget_norm"), [(2.0, 10.0), (10.0, 2.0), (10.0, 0.0)])
def test_displacement_is_a_share_of_theta_over_the_larger_gradient(retain_norm: float, forget_norm: float) -> None:
    state = UpdateState(retain_norm=retain_norm, forget_norm=forget_norm)
    assert DisplacementAlpha(ratio=0.01).choose(three_four(), state).alpha == pytest.approx(0.01 * 5 / 10)


@given(ratio=st.floats(1e-6, 1.0), retain_norm=NORMS, forget_norm=NORMS)
def test_displacement_moves_by_its_ratio_whatever_the_scale(
    ratio: float, retain_norm: float, forget_norm: float
) -> None:
    state = UpdateState(retain_norm=retain_norm, forget_norm=forget_norm)
    alpha = DisplacementAlpha(ratio=ratio).choose(three_four(), state).alpha
    assert alpha * max(retain_norm, forget_norm) == pytest.approx(ratio * 5)


def sought(alpha: CorrectionAlpha, correction: float, norm: float = 10.0) -> tuple[float, float]:
    """The alpha that is found where the look measures this, and that of the look."""
    state, taken = UpdateState(), list[float]()

    def look(ahead: LookAhead) -> Diagnostics:
        taken.append(ahead.within(norm))
        return Diagnostics(0.0, 0.0, norm, 1.0, 0.0, 3, alpha=taken[-1], correction=correction)

    assert alpha.seek(three_four(), state, look) == 3
    assert (state.retain_norm, state.forget_norm, state.step) == (norm, 1.0, 0)
    (alone,) = taken
    return state.alpha or 0.0, alone


@pytest.mark.parametrize("measured", [0.01, 0.1, 0.3, 5.0])
def test_one_look_finds_the_ratio_of_a_correction_that_grows_as_alpha_does(measured: float) -> None:
    found, taken = sought(CorrectionAlpha(ratio=0.2), measured)
    assert found / taken == pytest.approx(0.2 / measured)


@pytest.mark.parametrize(("limit", "share"), [(1e-2, LOOK), (1e-7, 1e-7)])
def test_the_look_is_short_and_no_longer_than_the_largest_displacement(limit: float, share: float) -> None:
    assert sought(CorrectionAlpha(max_displacement=limit), 0.1)[1] == pytest.approx(share * 5 / 10)


@pytest.mark.parametrize(
    ("measured", "factor"), [(0.0, 1e5), (1e-9, 1e5), (1e9, 1e-5), (math.nan, 1e-5), (math.inf, 1e-5)]
)
def test_a_look_that_says_next_to_nothing_moves_alpha_as_far_as_any(measured: float, factor: float) -> None:
    found, taken = sought(CorrectionAlpha(), measured)
    assert found == pytest.approx(factor * taken)


def test_nothing_is_found_where_there_is_no_gradient() -> None:
    assert sought(CorrectionAlpha(), 0.0, norm=0.0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        (0.1, 0.01),  # on target
        (0.2, 0.01 / 2**0.5),  # sqrt(0.1 / 0.2)
        (0.05, 0.01 * 2**0.5),  # sqrt(0.1 / 0.05)
        (0.4, 0.005),  # sqrt(1/4), the largest cut of what may be noise
        (0.5, 0.002),  # more is none: 1/5, as the correction grows with alpha
        (40.0, 1e-4),  # the largest cut
        (0.025, 0.02),  # sqrt(4), the largest growth
        (1e-9, 0.02),
        (0.0, 0.02),  # the look-ahead was too short for the precision to show
        (float("nan"), 1e-4),
        (float("inf"), 1e-4),
    ],
)
def test_correction_moves_alpha_by_the_root_of_the_miss(correction: float, expected: float) -> None:
    state = UpdateState()
    CorrectionAlpha(ratio=0.1).learn(state, measured(correction))
    assert state.alpha == pytest.approx(expected)


@pytest.mark.parametrize("seen", [measured(None), measured(0.3, alpha=0.0), measured(0.3, alpha=None)])
def test_correction_learns_nothing_from_a_step_that_measured_nothing(seen: Diagnostics) -> None:
    state = UpdateState(alpha=0.7)
    CorrectionAlpha().learn(state, seen)
    assert state.alpha == 0.7


@given(alpha=st.none() | st.floats(1e-9, 1e9), limit=st.floats(1e-6, 1.0), retain_norm=NORMS, forget_norm=NORMS)
def test_correction_never_chooses_more_than_the_largest_displacement(
    alpha: float | None, limit: float, retain_norm: float, forget_norm: float
) -> None:
    state = UpdateState(alpha=alpha, retain_norm=retain_norm, forget_norm=forget_norm)
    chosen = CorrectionAlpha(max_displacement=limit).choose(three_four(), state).alpha
    assert chosen * max(retain_norm, forget_norm) <= limit * 5 * (1 + 1e-9)


@pytest.mark.parametrize("mode", ["chained", "exact", "alternating", "first_order"])
def test_the_first_step_of_a_set_displacement_is_the_plain_sum(mode: Any) -> None:
    plain, rule = Network().problem().gradient(WeightedSum()), LUR(mode=mode, alpha=DisplacementAlpha())
    problem = Network().problem()
    torch.testing.assert_close(problem.gradient(rule), plain, rtol=0, atol=1e-15)
    assert problem.run(rule).alpha == 0.0


@pytest.mark.parametrize("mode", ["chained", "exact", "alternating", "first_order"])
@pytest.mark.parametrize("problem", [bowls, lambda: Network().problem()], ids=["bowls", "network"])
@pytest.mark.parametrize("ratio", [0.03, 0.1])
def test_the_first_step_of_the_controller_has_the_set_ratio_already(mode: Any, problem: Any, ratio: float) -> None:
    """Ten steps may be all there are, and the first decide. Its gradient is that of the alpha that was found."""
    one, state = problem(), UpdateState()
    rule = LUR(mode=mode, alpha=CorrectionAlpha(ratio=ratio, max_displacement=1.0))
    seen = rule(one.retain, one.forget, one.parameters, state)
    found = flat([p.grad for p in one.parameters])
    held = LUR(mode=mode, alpha=AbsoluteAlpha(value=seen.alpha or 0.0))
    torch.testing.assert_close(found, problem().gradient(held))
    assert ratio / 2 < (problem().run(replace(held, mode="chained")).correction or 0.0) < 2 * ratio
    assert (state.step, state.cosines) == (1, 1)


@pytest.mark.parametrize("ratio", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("mode", ["chained", "exact"])
def test_the_controller_converges_to_the_set_ratio(mode: Any, ratio: float) -> None:
    rule = LUR(mode=mode, alpha=CorrectionAlpha(ratio=ratio, max_displacement=1.0))
    seen, _ = simulate(rule, bowls(), 40)
    assert seen[-1].correction == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("mode", ["chained", "exact", "alternating", "first_order"])
@pytest.mark.parametrize("problem", [bowls, lambda: Network().problem()], ids=["bowls", "network"])
def test_a_short_run_looks_ahead_as_far_as_it_is_told_to(mode: Any, problem: Any) -> None:
    """After six steps; all is default but the largest displacement."""
    one = problem()
    _, state = simulate(LUR(mode=mode, alpha=CorrectionAlpha(max_displacement=1.0)), one, 6)
    held = LUR(mode="chained", alpha=AbsoluteAlpha(value=state.alpha or 0.0))
    assert 0.1 / 4 < (one.run(held).correction or 0.0) < 0.15


@pytest.mark.parametrize(("mode", "evaluations"), [("chained", 3 * 30), ("alternating", 2 * 30 + 5 + 1)])
def test_alternating_pays_for_five_early_measures_and_then_for_one_in_25(mode: Any, evaluations: int) -> None:
    """Beside the look that both begin with."""
    seen, _ = simulate(LUR(mode=mode), bowls(), 30)
    assert sum(d.evaluations for d in seen) == 3 + evaluations


def test_a_forget_gradient_that_was_quiet_and_becomes_loud_is_not_corrected_too_much_for_long() -> None:
    """What is known by heart has next to none at first. Coming down by halves would take many steps."""
    parameters, scale = three_four(), [1e-6]
    curvature, slope, lowest = torch.tensor([100.0, 2.0]), torch.tensor([1.0, -2.0]), torch.tensor([3.001, 4.001])
    retain = summed(parameters, lambda t: (curvature * (t - lowest).square()).sum() / 2)
    rule, state = LUR(alpha=CorrectionAlpha(max_displacement=1.0)), UpdateState()

    def forget() -> Iterator[torch.Tensor]:
        yield from (scale[0] * loss for loss in summed(parameters, lambda t: t @ slope)())

    corrections = []
    for step in range(12):
        scale[0] = 1e-6 if step < 6 else 1.0
        corrections.append(rule(retain, forget, parameters, state).correction or 0.0)
    assert corrections[6] > 5
    assert max(corrections[8:]) < 0.4, corrections


def test_the_controller_of_alternating_converges_from_the_steps_that_measure() -> None:
    rule = LUR(mode="alternating", alpha=CorrectionAlpha(max_displacement=1.0), measure_every=2)
    seen, _ = simulate(rule, bowls(), 60)
    corrections = [d.correction for d in seen if d.correction]
    assert corrections[-1] == pytest.approx(0.1, rel=1e-3)


def test_the_controller_follows_a_problem_that_changes_under_it() -> None:
    rule = LUR(alpha=CorrectionAlpha(max_displacement=1.0))
    seen, _ = simulate(rule, Network().problem(), 80, rate=0.01)
    assert seen[30].retain_norm > 1.05 * seen[-1].retain_norm
    for late in seen[30:]:
        assert late.correction == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("limit", [1e-3, 1e-2])
def test_no_step_moves_further_than_the_largest_displacement(limit: float) -> None:
    rule = LUR(alpha=CorrectionAlpha(ratio=1.0, max_displacement=limit))
    seen, _ = simulate(rule, steep(), 30)
    shares = [(d.alpha or 0.0) * max(d.retain_norm or 0.0, d.forget_norm or 0.0) / 5 for d in seen]
    assert max(shares) == pytest.approx(limit, rel=1e-5)  # the limit binds, and holds
    assert seen[-1].correction is not None
    assert seen[-1].correction < 1.0


@pytest.mark.parametrize("mode", ["chained", "alternating", "first_order", "exact"])
@pytest.mark.parametrize(
    "alpha",
    [DisplacementAlpha(ratio=1e-3), CorrectionAlpha(ratio=1.0, max_displacement=1e-3)],
    ids=lambda a: a.name,
)
@pytest.mark.parametrize("grown", ["retain", "forget"])
def test_a_gradient_that_grows_at_once_is_not_followed_further(mode: Any, alpha: Any, grown: str) -> None:
    """Gradient ascent on what a network knows by heart: next to no gradient, then all at once a large one."""
    problem, scales, shifts = bowls(), {"retain": 1.0, "forget": 1.0}, []
    here = flat(problem.parameters).detach().clone()

    def watched(name: str, objective: Objective) -> Objective:
        def scaled() -> Iterator[torch.Tensor]:
            shifts.append((flat(problem.parameters) - here).norm().item() / here.norm().item())
            yield from (scales[name] * loss for loss in objective())

        return scaled

    retain, forget = watched("retain", problem.retain), watched("forget", problem.forget)
    rule, state = LUR(mode=mode, alpha=alpha), UpdateState()
    for step in range(12):
        scales[grown] = 1.0 if step < 8 else 1e6
        rule(retain, forget, problem.parameters, state)
        scales[grown] = 1.0
        rule(retain, forget, problem.parameters, state)
    longest = 2e-3 if mode == "alternating" else 1e-3
    assert longest / 3 < max(shifts) <= longest * (1 + 1e-6)


def test_an_alpha_that_was_cut_and_corrects_too_much_even_so_is_lowered() -> None:
    state = UpdateState(alpha=1.0)
    CorrectionAlpha(ratio=0.1).learn(state, measured(0.4, alpha=0.01))
    assert state.alpha == pytest.approx(0.005)


@pytest.mark.parametrize("mode", ["chained", "alternating", "exact"])
def test_a_step_that_was_cut_does_not_undo_what_was_learned(mode: Any) -> None:
    """One batch of a far longer gradient, at a step that measures; doubling, it would take many to recover."""
    problem, scale = bowls(), [1.0]
    rule, state = LUR(mode=mode, alpha=CorrectionAlpha(max_displacement=1e-2), measure_every=1), UpdateState()

    def forget() -> Iterator[torch.Tensor]:
        yield from (scale[0] * loss for loss in problem.forget())

    for _ in range(20):
        rule(problem.retain, forget, problem.parameters, state)
    learned, scale[0] = state.alpha or 0.0, 1e5
    seen = rule(problem.retain, forget, problem.parameters, state)
    assert 0 < (seen.alpha or 0.0) < learned / 100, "it was cut"
    assert state.alpha is not None and state.alpha >= learned


def test_exact_weighs_its_correction_by_a_forget_gradient_that_has_grown() -> None:
    """alpha H_r u may be no longer than the curvature allows over the largest displacement."""
    problem, state = bowls(), UpdateState(step=5, alpha=0.1, retain_norm=3.0, forget_norm=5.0)
    seen = LUR(mode="exact")(problem.retain, lambda: (1e6 * x for x in problem.forget()), problem.parameters, state)
    assert seen.alpha == pytest.approx(1e-2 * 5**0.5 / seen.forget_norm)
    assert 0 < (seen.correction or 0.0) < 1e-7


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scale_free_alphas_choose_the_same_displacement_for_scaled_losses(factor: float) -> None:
    for alpha in (DisplacementAlpha(), CorrectionAlpha()):
        shifts = []
        for scale in (1.0, factor):
            network, parameters = Network(), Network().parameters()
            retain = summed(parameters, lambda t, n=network, s=scale: s * n.retain(t))
            forget = summed(parameters, lambda t, n=network, s=scale: s * n.forget(t))
            seen, _ = simulate(LUR(alpha=alpha), Problem(parameters, retain, forget), 12)
            shifts.append((seen[-1].alpha or 0.0) * seen[-1].retain_norm)
        assert shifts[1] == pytest.approx(shifts[0], rel=1e-6)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_an_alpha_that_is_no_length_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="value"):
        AbsoluteAlpha(value=value)


@pytest.mark.parametrize("cls", [DisplacementAlpha, CorrectionAlpha])
@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_zero_to_one_is_refused(cls: type[DisplacementAlpha | CorrectionAlpha], ratio: float) -> None:
    with pytest.raises(ValidationError, match="ratio"):
        cls(ratio=ratio)
