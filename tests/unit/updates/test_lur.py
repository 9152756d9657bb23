"""LUR's four modes against a problem solved by hand and against autograd through the inner step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erase.updates import LUR, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from tests.properties import assert_linear_order, assert_quadratic_order
from tests.unit.updates.problems import HEADS, TAILS, Network, Problem, bowls, flat

ALPHA = 0.25


def lur(mode: Any, alpha: float, measure_every: int = 0) -> LUR:
    return LUR(mode=mode, alpha=AbsoluteAlpha(value=alpha), measure_every=measure_every)


def objective(network: Network, theta: Tensor, alpha: float) -> Tensor:
    """What LUR minimizes: L_r(theta) + L_f(theta - alpha grad L_r(theta))."""
    inner: Tensor = torch.func.grad(network.retain)(theta)
    return network.retain(theta) + network.forget(theta - alpha * inner)


def judge(alpha: float) -> Tensor:
    """Its gradient by autograd through the inner step: none of the toolkit's code takes part."""
    network = Network()
    theta = flat(network.parameters()).detach()
    result: Tensor = torch.func.grad(lambda t: objective(network, t, alpha))(theta)
    return result


def error(mode: str, alpha: float) -> float:
    return distance(Network().problem().gradient(lur(mode, alpha)), alpha)


def distance(gradient: Tensor, alpha: float) -> float:
    return float((gradient - judge(alpha)).norm())


def mean_of_branches(problem: Problem, alpha: float) -> Tensor:
    rule = lur("alternating", alpha)
    return (problem.gradient(rule, HEADS) + problem.gradient(rule, TAILS)) / 2


# The bowls at alpha = 1/4; every number is a binary fraction, so equality is exact.
#   look-ahead       theta - g_r/4 = (1, 2) - (1/2, 1/2) = (1/2, 3/2)
#   u                g_f there     = (3 (-3/2), 4 (1/2)) = (-9/2, 2)
#   H_r u            diag(2, 1) u  = (-9, 2)
#   exact            g_r + u - H_r u / 4            = (2 - 9/2 + 9/4, 2 + 2 - 1/2) = (-1/4, 7/2)
#   chained          u + g_r(theta - u/4)           = (-9/2, 2) + g_r(17/8, 3/2) = (-9/2 + 17/4, 2 + 3/2)
#   first_order      g_r + u                        = (-5/2, 4)
#   retain first     g_r + g_f(theta - g_r/2)       = (2, 2) + g_f(0, 1) = (2, 2) + (-6, 0) = (-4, 2)
#   forget first     g_f + g_r(theta - g_f/2)       = (-3, 4) + g_r(5/2, 0) = (-3, 4) + (5, 0) = (2, 4)
@pytest.mark.parametrize(
    ("mode", "step", "expected"),
    [
        ("exact", 0, [-0.25, 3.5]),
        ("chained", 0, [-0.25, 3.5]),
        ("first_order", 0, [-2.5, 4.0]),
        ("alternating", HEADS, [-4.0, 2.0]),
        ("alternating", TAILS, [2.0, 4.0]),
    ],
)
def test_gradient_is_the_one_worked_by_hand(mode: str, step: int, expected: list[float]) -> None:
    assert bowls().gradient(lur(mode, ALPHA), step).tolist() == expected


def test_alternating_misses_only_the_second_order_term_by_hand() -> None:
    # exact = g_r + g_f - alpha (H_f g_r + H_r g_f) + alpha^2 H_r H_f g_r; the branches' mean lacks the last:
    # H_r H_f g_r / 16 = diag(2, 1) diag(3, 4) (2, 2) / 16 = (12, 8) / 16 = (3/4, 1/2)
    mean = mean_of_branches(bowls(), ALPHA)
    assert (mean + torch.tensor([0.75, 0.5])).tolist() == [-0.25, 3.5]


@pytest.mark.parametrize("mode", ["chained", "exact"])
def test_diagnostics_are_the_ones_worked_by_hand(mode: str) -> None:
    seen = bowls().run(lur(mode, ALPHA))
    assert seen.retain_loss == 3.0  # (2 + 4) / 2 at theta
    assert seen.forget_loss == 3.875  # (3 (9/4) + 4 (1/4)) / 2 at the look-ahead
    assert seen.alpha == ALPHA
    assert seen.retain_norm == pytest.approx(8**0.5)
    assert seen.forget_norm == pytest.approx(24.25**0.5)  # |(-9/2, 2)|
    assert seen.cosine == pytest.approx(-5 / (8 * 24.25) ** 0.5)  # <(2, 2), (-9/2, 2)> = -5
    assert seen.correction == pytest.approx((5.3125 / 22.25) ** 0.5)  # |(9/4, -1/2)| / |(-5/2, 4)|
    assert seen.evaluations == 3


def test_first_order_measures_its_own_correction_by_hand() -> None:
    # |g_f(theta - g_r/4) - g_f| / |g_r + g_f| = |(-3/2, -2)| / |(-1, 6)| = (5/2) / sqrt(37)
    seen = bowls().run(lur("first_order", ALPHA, measure_every=5), step=1)
    assert seen.correction == pytest.approx(2.5 / 37**0.5)
    assert seen.evaluations == 3


@pytest.mark.parametrize(("mode", "step"), [("first_order", 0), ("alternating", HEADS), ("alternating", TAILS)])
def test_two_evaluation_modes_cost_a_plain_sum(mode: str, step: int) -> None:
    calls: list[str] = []
    problem = bowls()

    def counted(name: str, inner: Any) -> Any:
        return lambda: calls.append(name) or inner()

    problem.retain, problem.forget = counted("retain", problem.retain), counted("forget", problem.forget)
    assert problem.run(lur(mode, ALPHA), step).evaluations == 2
    assert sorted(calls) == ["forget", "retain"]


def test_the_judge_agrees_with_central_differences_of_the_objective() -> None:
    network, width = Network(), 1e-5
    theta = flat(network.parameters()).detach()
    shifts = width * torch.eye(theta.numel(), dtype=theta.dtype)
    slopes = [(objective(network, theta + d, 0.1) - objective(network, theta - d, 0.1)) / (2 * width) for d in shifts]
    torch.testing.assert_close(torch.stack(slopes), judge(0.1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.001, 0.1, 1.0])
def test_exact_is_the_gradient_of_the_objective(alpha: float) -> None:
    assert error("exact", alpha) < 1e-10


def test_chained_error_falls_quadratically() -> None:
    assert_quadratic_order(lambda alpha: error("chained", alpha))


def test_mean_of_alternating_branches_has_an_error_that_falls_quadratically() -> None:
    assert_quadratic_order(lambda alpha: distance(mean_of_branches(Network().problem(), alpha), alpha))


@pytest.mark.parametrize("step", [HEADS, TAILS])
def test_one_alternating_branch_alone_is_only_linear(step: int) -> None:
    problem = Network().problem()
    assert_linear_order(lambda alpha: distance(problem.gradient(lur("alternating", alpha), step), alpha))


def test_first_order_error_falls_only_linearly() -> None:
    assert_linear_order(lambda alpha: error("first_order", alpha))
    with pytest.raises(AssertionError, match="not of order 2"):
        assert_quadratic_order(lambda alpha: error("first_order", alpha))


def test_plain_sum_error_falls_only_linearly() -> None:
    plain = Network().problem().gradient(WeightedSum())
    assert_linear_order(lambda alpha: distance(plain, alpha))


def test_what_first_order_loses_is_the_retain_curvature() -> None:
    network, alpha = Network(), 1e-3
    theta = flat(network.parameters()).detach()
    retain = torch.func.grad(network.retain)
    forget = torch.func.grad(network.forget)(theta - alpha * retain(theta))
    lost = -alpha * torch.func.grad(lambda t: torch.dot(retain(t), forget))(theta)  # -alpha H_r u
    torch.testing.assert_close(judge(alpha) - network.problem().gradient(lur("first_order", alpha)), lost)


@pytest.mark.parametrize("mode", ["chained", "exact"])
def test_lur_raises_the_inner_product_of_the_gradients(mode: str) -> None:
    # to first order LUR's change of the plain sum is -alpha grad <g_f, g_r>
    network, alpha = Network(), 1e-4
    theta = flat(network.parameters()).detach()
    retain, forget = torch.func.grad(network.retain), torch.func.grad(network.forget)
    alignment = torch.func.grad(lambda t: torch.dot(retain(t), forget(t)))(theta)
    change = network.problem().gradient(lur(mode, alpha)) - network.problem().gradient(WeightedSum())
    torch.testing.assert_close(change / -alpha, alignment, rtol=0, atol=1e-2 * alignment.norm().item())


@pytest.mark.parametrize(
    ("mode", "step"),
    [("chained", 0), ("exact", 0), ("first_order", 0), ("alternating", HEADS), ("alternating", TAILS)],
)
def test_alpha_zero_is_the_plain_sum(mode: str, step: int) -> None:
    plain = Network().problem().gradient(WeightedSum())
    torch.testing.assert_close(Network().problem().gradient(lur(mode, 0.0), step), plain, rtol=0, atol=1e-15)
