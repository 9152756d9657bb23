"""Rules of two weights: values worked by hand, whole steps on two objectives, and the Gram matrix itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from erase import inner_products
from erase.inner_products import Gram
from erase.protocols import UpdateState
from erase.updates import MGDA, CAGrad, GradientProjection, Nash, PCGrad, UPGrad, WeightedSum
from erase.updates.gram import GramRule, gram_of
from tests.properties import assert_parameters_restored
from tests.unit.updates.pairs import KINDS, many, pairs, weights_of
from tests.unit.updates.problems import Network, Problem, bowls, flat, flat_gradient, summed

RULES: dict[str, GramRule] = {
    "pcgrad": PCGrad(),
    "upgrad": UPGrad(),
    "mgda": MGDA(),
    "cagrad": CAGrad(c=0.5),
    "wide cagrad": CAGrad(c=1.0),
    "nash": Nash(),
    "gradient_projection": GradientProjection(),
}
GRADIENTS = {
    "aligned": ([1.0, 0.0], [2.0, 0.0]),
    "orthogonal": ([1.0, 0.0], [0.0, 2.0]),
    "conflict": ([2.0, 0.0], [-1.0, 1.0]),
    "opposed": ([1.0, 0.0], [-2.0, 0.0]),
    "retain zero": ([0.0, 0.0], [0.0, 2.0]),
    "forget zero": ([2.0, 0.0], [0.0, 0.0]),
    "both zero": ([0.0, 0.0], [0.0, 0.0]),
    "equal": ([2.0, 0.0], [2.0, 0.0]),
}
R2, R5 = 2**0.5, 5**0.5
LEFT = (1 - 1 / R2) ** 0.5
"""sqrt(1 + cos) of the pair in conflict, whose cosine is -2 / (2 sqrt 2)."""

# With a = |g_r|^2, c = <g_r, g_f>, b = |g_f|^2:
#                 aligned   orthogonal  conflict    opposed    g_r = 0   g_f = 0   equal
#   (a, c, b)     1, 2, 4   1, 0, 4     4, -2, 2    1, -2, 4   0, 0, 4   4, 0, 0   4, 4, 4
# pcgrad: (1 - c/a, 1 - c/b) in conflict: (1 + 2/4, 1 + 2/2), (1 + 2/1, 1 + 2/4); upgrad is half of it;
# gradient_projection has 1 in place of the second.
# mgda: (b - c) / (a + b - 2c) = 2/1 cut to 1, 4/5, 4/10, 6/9, 4/4, 0/4; of two equal ones the mean.
# nash: 1 / |g| / sqrt(1 + cos), with 1 + cos = 2, 1, 1 - 1/sqrt 2, 0 (nothing to bargain for), 1, 1, 2.
# cagrad, c = 1/2: g_0 is the mean, w the minimum of F(w) = <g_w, g_0> + |g_0| |g_w| / 2.
#   aligned       g_w is between 1 and 2 long: the shorter, w = 1; |g_0| / 2 / |g_w| = 3/4
#   orthogonal    F' = (1 - 4)/2 + sqrt(5)/4 (w - 4 (1 - w)) / |g_w|, at w = 1 still -3/2 + sqrt(5)/4 < 0: w = 1
#   conflict      F' = 1 + sqrt(1/8) (10 w - 4) / |g_w|, at w = 0: 1 - 4 / (sqrt 8 sqrt 2) = 0: w = 0, 1/sqrt 8/sqrt 2
#   opposed       |g_w| = |3w - 2|: F = (3w - 2)(-1/2) + |3w - 2| / 4 falls up to w = 1: -1/4; |g_0|/2 = 1/4
# cagrad, c = 1: F' = 0 where |g_w| = |g_0|, so that w = (b - c - (a - b)/2) / (a + b - 2c) where that is in [0, 1].
#   aligned       w = 1, |g_0| / |g_w| = 3/2;  orthogonal  (4 + 3/2) / 5 > 1: w = 1, |g_0| = sqrt(5)/2
#   conflict      w = (4 - 1)/10 = 3/10, |g_w| = |g_0|
#   opposed       no direction is good for both, and none is taken
#   equal         |g_0| = |g_w|: twice the mean for c = 1
# Where a gradient vanishes, cagrad's worse objective gains nothing from any direction: the mean.
BY_HAND: dict[str, list[tuple[float, float]]] = {
    "pcgrad": [(1, 1), (1, 1), (1.5, 2), (3, 1.5), (1, 1), (1, 1), (1, 1), (1, 1)],
    "upgrad": [(0.5, 0.5), (0.5, 0.5), (0.75, 1), (1.5, 0.75), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)],
    "gradient_projection": [(1, 1), (1, 1), (1.5, 1), (3, 1), (1, 1), (1, 1), (1, 1), (1, 1)],
    "mgda": [(1, 0), (0.8, 0.2), (0.4, 0.6), (2 / 3, 1 / 3), (1, 0), (0, 1), (0.5, 0.5), (0.5, 0.5)],
    "nash": [
        (1 / R2, 1 / (2 * R2)),
        (1, 0.5),
        (1 / (2 * LEFT), 1 / (R2 * LEFT)),
        (0, 0),
        (0, 0.5),
        (0.5, 0),
        (0, 0),
        (1 / (2 * R2), 1 / (2 * R2)),
    ],
    "cagrad": [
        (0.5 + 0.75, 0.5),
        (0.5 + R5 / 4, 0.5),
        (0.5, 0.5 + 0.25),
        (0.5 + 0.25, 0.5),
        (0.5, 0.5),
        (0.5, 0.5),
        (0.5, 0.5),
        (0.75, 0.75),
    ],
    "wide cagrad": [(2, 0.5), (0.5 + R5 / 2, 0.5), (0.8, 1.2), (0, 0), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (1, 1)],
}
WORKED = [
    (rule, case, value) for rule, values in BY_HAND.items() for case, value in zip(GRADIENTS, values, strict=True)
]


def combined(rule: GramRule | WeightedSum, retain: list[float], forget: list[float]) -> Tensor:
    """What the rule makes of two gradients that lie in two tensors each."""
    r, f = ([torch.tensor(x[:1]).double(), torch.tensor(x[1:]).double()] for x in (retain, forget))
    rule.combine(r, f, UpdateState())
    return torch.cat(f)


@pytest.mark.parametrize(("rule", "case", "weights"), WORKED)
def test_the_combination_is_the_one_worked_by_hand(rule: str, case: str, weights: tuple[float, float]) -> None:
    retain, forget = GRADIENTS[case]
    expected = weights[0] * torch.tensor(retain).double() + weights[1] * torch.tensor(forget).double()
    torch.testing.assert_close(combined(RULES[rule], retain, forget), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("rule", "case", "weights"), [x for x in WORKED if x[1] not in ("opposed", "equal")])
def test_the_weights_are_the_ones_worked_by_hand(rule: str, case: str, weights: tuple[float, float]) -> None:
    retain, forget = (torch.tensor(x).double() for x in GRADIENTS[case])
    assert weights_of(RULES[rule], retain, forget) == pytest.approx(weights, abs=1e-12)


@pytest.mark.parametrize("length", [-0.37, -3.0])
def test_opposed_gradients_in_float32_leave_nash_nothing_but_rounding_which_is_not_followed(length: float) -> None:
    retain = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    forget = length * retain
    assert weights_of(Nash(), retain, forget) == (0, 0)
    forget[0] += 0.1 * retain.norm()
    assert min(weights_of(Nash(), retain, forget)) > 0


def test_the_weighted_sum_combines_as_it_sums() -> None:
    assert combined(WeightedSum(), [2.0, 2.0], [-3.0, 4.0]).tolist() == [-1.0, 6.0]


@many
@given(pairs(["aligned", "equal", "orthogonal"], 6, 6))
def test_without_conflict_pcgrad_and_projection_are_the_weighted_sum(gradients: tuple[Tensor, Tensor]) -> None:
    for rule in (PCGrad(), GradientProjection()):
        assert weights_of(rule, *gradients) == pytest.approx((1.0, 1.0), abs=1e-9)


@many
@given(pairs(KINDS, 6, 6))
def test_upgrad_is_half_of_pcgrad_and_cagrad_of_no_radius_the_mean(gradients: tuple[Tensor, Tensor]) -> None:
    half = tuple(w / 2 for w in weights_of(PCGrad(), *gradients))
    assert weights_of(UPGrad(), *gradients) == half
    assert weights_of(CAGrad(c=0.0), *gradients) == (0.5, 0.5)


# The bowls at (1, 2): g_r = (2, 2), g_f = (-3, 4), a = 8, c = 2, b = 25: no conflict.
#   mgda     (25 - 2) / (8 + 25 - 4) = 23/29: (46 - 18, 46 + 24) / 29
#   upgrad   (-1, 6) / 2
# The same with the retain bowl upside down: g_r = (-2, -2), c = -2.
#   pcgrad   5/4 (-2, -2) + 27/25 (-3, 4) = (-2.5 - 3.24, -2.5 + 4.32)
#   upgrad   half of it
#   project  5/4 (-2, -2) + (-3, 4)
#   mgda     (25 + 2) / (8 + 25 + 4) = 27/37: (-54 - 30, -54 + 40) / 37
@pytest.mark.parametrize(
    ("rule", "peace", "conflict"),
    [
        (PCGrad(), (-1.0, 6.0), (-5.74, 1.82)),
        (UPGrad(), (-0.5, 3.0), (-2.87, 0.91)),
        (GradientProjection(), (-1.0, 6.0), (-5.5, 1.5)),
        (MGDA(), (28 / 29, 70 / 29), (-84 / 37, -14 / 37)),
        (CAGrad(c=0.0), (-0.5, 3.0), (-2.5, 1.0)),
    ],
)
def test_a_whole_step_is_the_one_worked_by_hand(
    rule: GramRule, peace: tuple[float, float], conflict: tuple[float, float]
) -> None:
    problem = bowls()
    assert problem.gradient(rule).tolist() == pytest.approx(peace)
    upside_down = summed(problem.parameters, lambda t: -(2 * t[0] ** 2 + t[1] ** 2) / 2)
    assert Problem(problem.parameters, upside_down, problem.forget).gradient(rule).tolist() == pytest.approx(conflict)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_is_the_weights_times_the_gradients_of_autograd(name: str, sign: int) -> None:
    network = Network()
    problem = network.problem(micro_batches=2)
    problem.forget = summed(problem.parameters, lambda theta: sign * network.forget(theta))
    theta = flat(network.parameters()).detach()
    retain, forget = torch.func.grad(network.retain)(theta), sign * torch.func.grad(network.forget)(theta)
    w_retain, w_forget = weights_of(RULES[name], retain, forget)
    with assert_parameters_restored(problem.parameters):
        found = problem.gradient(RULES[name])
    torch.testing.assert_close(found, w_retain * retain + w_forget * forget, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", RULES)
def test_diagnostics_are_of_the_gradients_and_not_of_their_combination(name: str) -> None:
    problem, state = bowls(), UpdateState()
    seen = RULES[name](problem.retain, problem.forget, problem.parameters, state)
    assert (seen.retain_loss, seen.forget_loss) == (3.0, 3.5)  # (2 + 4) / 2 and (3 + 4) / 2
    assert (seen.retain_norm, seen.forget_norm) == pytest.approx((8**0.5, 5.0))
    assert seen.cosine == pytest.approx(2 / (5 * 8**0.5))
    assert (seen.evaluations, seen.alpha, seen.correction) == (2, None, None)
    assert [sketch.tolist() for sketch in seen.sketches if sketch is not None] == [[2.0, 2.0], [-3.0, 4.0]]
    assert "sketches" not in seen.numbers()
    expected = UpdateState(step=1, retain_norm=8**0.5, forget_norm=5.0, cosines=1)
    assert state == expected
    assert flat_gradient(problem.parameters).isfinite().all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("spoilt", [0, 1])
def test_what_is_not_finite_is_not_hidden(name: str, value: float, spoilt: int) -> None:
    """The loop stops at it."""
    gradients = [[1.0, 2.0], [-3.0, 4.0]]
    gradients[spoilt][0] = value
    assert not combined(RULES[name], *gradients).isfinite().all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("zero", [0, 1])
def test_beside_a_gradient_of_zero_what_is_not_finite_is_not_hidden(name: str, value: float, zero: int) -> None:
    """As in a first step: teacher distillation's gradient is 0 there."""
    gradients = [[value, 2.0], [value, 2.0]]
    gradients[zero] = [0.0, 0.0]
    assert not combined(RULES[name], *gradients).isfinite().all()


def test_steps_in_conflict_are_counted() -> None:
    problem, state = bowls(), UpdateState()
    turned = summed(problem.parameters, lambda t: -(2 * t[0] ** 2 + t[1] ** 2) / 2)
    for retain in (problem.retain, turned, turned):
        PCGrad()(retain, problem.forget, problem.parameters, state)
    assert (state.step, state.conflicts, state.cosines, state.conflict_share) == (3, 2, 3, 2 / 3)


# The Gram matrix


def test_the_gram_matrix_is_the_one_of_dense_float64_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several tensors, of several types, longer than a chunk and not a multiple of it."""
    shapes = [(4, 6), (), (25,), (10,)]
    types = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
    retain, forget = (
        [torch.randn(shape).to(dtype) for shape, dtype in zip(shapes, types, strict=True)] for _ in range(2)
    )
    r, f = (torch.cat([t.reshape(-1).double() for t in side]) for side in (retain, forget))
    dense = [torch.dot(r, r).item(), torch.dot(r, f).item(), torch.dot(f, f).item()]
    for chunk in (inner_products.CHUNK["cpu"], 24, 7, 1):
        monkeypatch.setattr(inner_products, "CHUNK", {"cpu": chunk})
        found = gram_of(retain, forget)
        assert [found.retain, found.inner, found.forget] == pytest.approx(dense, rel=1e-14, abs=1e-14)


def test_float32_gradients_are_multiplied_in_float64() -> None:
    """1e-30 squared is no float32; nor is 1 left of 1e8 + 1 - 1e8."""
    tiny = gram_of([torch.full((4,), 1e-30)], [torch.full((4,), 1e-30)])
    assert tiny.retain == pytest.approx(4e-60)
    exact = gram_of([torch.tensor([1e4, 1.0, 1e4])], [torch.tensor([1e4, 1.0, -1e4])])
    assert exact.inner == 1.0


@pytest.mark.parametrize(
    ("matrix", "cosine"),
    [(Gram(4, -2, 2), -1 / R2), (Gram(1, 2, 4), 1), (Gram(1, -2, 4), -1), (Gram(0, 0, 4), 0), (Gram(0, 0, 0), 0)],
)
def test_the_cosine_of_a_gram_matrix_by_hand(matrix: Gram, cosine: float) -> None:
    assert matrix.cosine == pytest.approx(cosine)
    assert -1 <= matrix.cosine <= 1
