"""Rules of two weights before independent judges: TorchJD, dense searches, and the equations that define them."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
import torchjd.aggregation as judges
from hypothesis import given
from hypothesis import strategies as st
from qpsolvers import solve_qp
from torch import Tensor
from torchjd.linalg import QuadprogProjector

from erase.inner_products import Gram
from erase.protocols import UpdateState
from erase.updates import MGDA, CAGrad, GradientProjection, Nash, PCGrad, UPGrad, WeightedSum
from erase.updates.gram import gram_of
from tests.unit.updates.pairs import KINDS, combination, many, pair, pairs, weights_of

RADII = [0.0, 0.2, 0.5, 0.9, 1.0, 2.0]
GRID = torch.linspace(0, 1, 20_001, dtype=torch.float64)


def judged(judge: judges.Aggregator, retain: Tensor, forget: Tensor) -> Tensor:
    """What TorchJD makes of the Jacobian."""
    return judge(torch.stack([retain, forget]))


def unit(gradient: Tensor) -> tuple[Tensor, float]:
    """Direction and length, for judges that are accurate near 1 alone, where the rest is a theorem."""
    length = gradient.norm().item()
    return gradient / length if length > 0 else gradient, length


def squared_lengths(retain: Tensor, forget: Tensor) -> Tensor:
    """|w g_r + (1 - w) g_f|^2 for each w of the grid."""
    mixed = GRID[:, None] * retain + (1 - GRID[:, None]) * forget
    return mixed.square().sum(1)


@many
@given(pairs(KINDS, 6, 6))
def test_the_weighted_sum_is_torchjd_s(gradients: tuple[Tensor, Tensor]) -> None:
    retain, found = (g.clone() for g in gradients)
    WeightedSum().combine([retain], [found], UpdateState())
    size = sum(g.norm().item() for g in gradients)
    assert (found - judged(judges.Sum(), *gradients)).norm() <= 1e-15 * size


@many
@given(pairs(KINDS, 6, 6))
def test_pcgrad_is_torchjd_s(gradients: tuple[Tensor, Tensor]) -> None:
    found, size = combination(PCGrad(), *gradients)
    assert (found - judged(judges.PCGrad(), *gradients)).norm() <= 1e-12 * size


@many
@given(pairs(KINDS, 6, 6))
def test_upgrad_is_torchjd_s(gradients: tuple[Tensor, Tensor]) -> None:
    """Its projector adds reg_eps = 1e-12 to squared norms, so that it is given units, and their lengths as preferences.

    The dual cone is the same whatever the lengths, and a projection onto a cone grows with what is projected.
    """
    (retain, first), (forget, second) = (unit(g) for g in gradients)
    largest, projector = max(first, second), QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)
    preferred = torch.tensor([first, second], dtype=torch.float64) / (2 * largest)
    judge = judges.UPGrad(pref_vector=preferred, projector=projector)
    found, size = combination(UPGrad(), *gradients)
    assert (found - largest * judged(judge, retain, forget)).norm() <= 1e-9 * size


def test_torchjd_s_upgrad_takes_small_gradients_for_none_and_ours_does_not() -> None:
    """Below norm_eps = 1e-4 of squared norm it returns the mean, conflict or not; g_r of a UNet can be that small."""
    retain, forget = 1e-3 * torch.tensor([2.0, 0.0]).double(), 1e-3 * torch.tensor([-1.0, 1.0]).double()
    torch.testing.assert_close(judged(judges.UPGrad(), retain, forget), (retain + forget) / 2)
    assert weights_of(UPGrad(), retain, forget) == pytest.approx((0.75, 1.0))


@many
@given(pairs(KINDS, 6, 6))
def test_mgda_is_torchjd_s(gradients: tuple[Tensor, Tensor]) -> None:
    """Frank-Wolfe on a segment ends after one step, so that the judge is exact."""
    found, size = combination(MGDA(), *gradients)
    assert (found - judged(judges.MGDA(epsilon=1e-14, max_iters=20), *gradients)).norm() <= 1e-9 * size


@given(pairs(KINDS, 6, 6))
def test_no_convex_combination_is_shorter_than_mgda_s(gradients: tuple[Tensor, Tensor]) -> None:
    w_retain, w_forget = weights_of(MGDA(), *gradients)
    assert min(w_retain, w_forget) >= 0
    assert w_retain + w_forget == pytest.approx(1)
    shortest = squared_lengths(*gradients).min().sqrt().item()
    length = combination(MGDA(), *gradients)[0].norm().item()
    assert length <= shortest + 1e-9 * max(g.norm().item() for g in gradients)


# CAGrad: of all directions within its ball, the one that is best for the worse objective. Where that is many (one
# gradient zero, two that oppose each other wholly), two solvers may choose differently: the worth is compared there.


def worse(retain: Tensor, forget: Tensor, direction: Tensor) -> float:
    """What the worse objective gains, as a share of the larger squared norm."""
    largest = max(retain.norm().item(), forget.norm().item())
    gains = [torch.dot(direction, g).item() for g in (retain, forget)]
    return min(gains) / largest**2


@pytest.mark.parametrize("c", RADII)
@given(gradients=pairs(KINDS, 6, 6))
def test_cagrad_is_in_its_ball_and_as_good_as_torchjd_s(c: float, gradients: tuple[Tensor, Tensor]) -> None:
    """1e-7: the Gram matrix knows the length of a mean that cancels to 1e-8.

    1e-10: Clarabel stops at 1e-8 of its own objective, which is flat at the minimum, and can only be worse.
    """
    retain, forget = gradients
    mean = (retain + forget) / 2
    found, size = combination(CAGrad(c=c), retain, forget)
    assert (found - mean).norm() <= c * mean.norm() + 1e-7 * max(size, mean.norm().item())
    judge = judged(judges.CAGrad(c=c, norm_eps=0.0), retain, forget)
    assert worse(retain, forget, found) >= worse(retain, forget, judge) - 1e-10


@pytest.mark.parametrize("c", RADII)
@given(gradients=pairs(["random", "aligned", "orthogonal", "equal"], 6, 2))
def test_cagrad_is_torchjd_s(c: float, gradients: tuple[Tensor, Tensor]) -> None:
    """5e-4: near a minimum of F, an error of 1e-8 in F, where Clarabel stops, is one of its root in w.

    Beyond a hundred between the norms that is not accurate enough to judge the smaller weight; the next test does.
    """
    found, size = combination(CAGrad(c=c), *gradients)
    assert (found - judged(judges.CAGrad(c=c, norm_eps=0.0), *gradients)).norm() <= 5e-4 * size


def least_dual(retain: Tensor, forget: Tensor, c: float) -> tuple[float, tuple[float, float] | None]:
    """The least F(w), in 60 digits by bisecting its slope, as a share of the larger squared norm; and CAGrad's weights.

    None where g_w cancels to less than a float64 Gram matrix knows, and any direction of the ball will do.
    """

    def dot(left: list[Decimal], right: list[Decimal]) -> Decimal:
        return sum((x * y for x, y in zip(left, right, strict=True)), Decimal(0))

    with localcontext(prec=60):
        r, f = ([Decimal(x) for x in g.tolist()] for g in (retain, forget))
        mean, apart = ([(x + sign * y) / n for x, y in zip(r, f, strict=True)] for sign, n in ((1, 2), (-1, 1)))
        radius, low, high = Decimal(c) * dot(mean, mean).sqrt(), Decimal(0), Decimal(1)
        for _ in range(100):
            w = (low + high) / 2
            mixed = [w * x + (1 - w) * y for x, y in zip(r, f, strict=True)]
            length = dot(mixed, mixed).sqrt()
            slope = dot(apart, mean) * length + radius * dot(apart, mixed)
            low, high = (low, w) if slope > 0 else (w, high)
        shorter, longer = sorted([dot(r, r), dot(f, f)])
        least = float((dot(mixed, mean) + radius * length) / longer)
        if length <= Decimal("1e-7") * shorter.sqrt():
            return least, None
        share = radius / length
        return least, (0.5 + float(share * w), 0.5 + float(share * (1 - w)))


@pytest.mark.parametrize("c", RADII)
@many
@given(gradients=pairs(KINDS, 6, 6))
def test_no_weight_has_a_lower_dual_than_cagrad_s(c: float, gradients: tuple[Tensor, Tensor]) -> None:
    """Strong duality: the worse objective's gain at the optimum is the least F(w); in 60 digits, of any two norms.

    The Gram matrix knows the squared length of the mean to 1e-16 of the larger: the length itself, if it cancels, to
    that over what is left of it, and to 1e-8 at worst.
    """
    retain, forget = gradients
    found, size = combination(CAGrad(c=c), retain, forget)
    least, weights = least_dual(retain, forget, c)
    left = ((retain + forget).norm() / max(retain.norm(), forget.norm())).item()
    known = (1 + c) * max(1e-12, 1e-15 / max(left, 1e-8))
    assert abs(worse(retain, forget, found) - least) <= known
    if weights is not None and min(retain.norm(), forget.norm()) > 0:  # else many directions are as good: see above
        parts = weights[0] * retain, weights[1] * forget
        assert (found - parts[0] - parts[1]).norm() <= known * max(size, parts[0].norm().item())


# One-sided projection: the nearest to g_f that does not oppose g_r, and g_r on top


@many
@given(pairs([kind for kind in KINDS if kind != "retain zero"], 6, 6))
def test_gradient_projection_adds_the_nearest_that_does_not_oppose(gradients: tuple[Tensor, Tensor]) -> None:
    """The judge solves min |d - g_f|^2 subject to <d, g_r> >= 0 as a quadratic program, of units.

    The half-space is the same whatever the length of g_r, and the nearest in it grows with g_f.
    """
    (retain, _), (forget, length) = (unit(g) for g in gradients)
    nearest = solve_qp(np.eye(len(forget)), -forget.numpy(), -retain.numpy()[None], np.zeros(1), solver="quadprog")
    assert nearest is not None
    found, size = combination(GradientProjection(), *gradients)
    assert (found - gradients[0] - length * torch.from_numpy(nearest)).norm() <= 1e-12 * size


# Nash: G w = 1 / w


def residual(matrix: Gram, weights: tuple[float, float]) -> float:
    """How far w_i (G w)_i is from 1, at worst."""
    w_retain, w_forget = weights
    first = w_retain * (matrix.retain * w_retain + matrix.inner * w_forget)
    second = w_forget * (matrix.inner * w_retain + matrix.forget * w_forget)
    return max(abs(first - 1), abs(second - 1))


@many
@given(st.floats(-12, 12), st.floats(-12, 12), st.floats(-0.999999, 1))
def test_nash_solves_its_equations_for_norms_from_1e_12_to_1e12(retain: float, forget: float, cosine: float) -> None:
    """A cosine of -1 + 1e-6 costs 1e-16 / 1e-6 of precision; 1e-9 leaves room."""
    r, f = 10**retain, 10**forget
    matrix = Gram(r * r, cosine * r * f, f * f)
    weights = Nash().weights(matrix)
    assert residual(matrix, weights) < 1e-9
    squared = weights[0] ** 2 * matrix.retain + 2 * weights[0] * weights[1] * matrix.inner
    assert math.sqrt(squared + weights[1] ** 2 * matrix.forget) == pytest.approx(2**0.5, rel=1e-9)


@pytest.mark.parametrize("exponents", [(-12, -12), (-12, 12), (0, 0), (12, 12), (-6, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nash_is_of_norm_root_two_whatever_the_gradients_norms(exponents: tuple[int, int], dtype: torch.dtype) -> None:
    retain, forget = (g.to(dtype) for g in pair("random", 7, *exponents))
    found, _ = combination(Nash(), retain, forget)
    assert found.norm().item() == pytest.approx(2**0.5, rel=1e-5)
    assert residual(gram_of([retain], [forget]), weights_of(Nash(), retain, forget)) < 1e-9


def test_a_small_number_in_the_denominators_would_break_it() -> None:
    """In float32, with 1e-8 added to the norms and to 1 + cos: gradients of 1e-9 get other weights."""
    retain, forget = (g.float() for g in pair("random", 7, -9, -9))
    norms = retain.norm() + 1e-8, forget.norm() + 1e-8
    cosine = torch.dot(retain, forget) / (norms[0] * norms[1])
    padded = tuple(1 / (norm * (1 + cosine + 1e-8).sqrt()).item() for norm in norms)
    assert residual(gram_of([retain], [forget]), padded) > 0.5


@given(pairs(["random", "aligned", "orthogonal", "equal"], 6, 6))
def test_nash_is_torchjd_s_fairgrad_of_alpha_one(gradients: tuple[Tensor, Tensor]) -> None:
    """FairGrad solves G w = w^(-1/alpha) by least squares from uniform weights, so norms far from 1 are not for it.

    It is given units: if w solves the equations of g_r and g_f, (w_r / s, w_f / t) solves those of s g_r and t g_f.
    NashMTL itself is no judge: it stops its outer iterations at a residual of 1e-3 of other weights, or at none.
    """
    (retain, first), (forget, second) = (unit(g) for g in gradients)
    w_retain, w_forget = judges.FairGrad(alpha=1.0).gramian_weighting(
        torch.stack([retain, forget]) @ torch.stack([retain, forget]).T
    )
    expected = w_retain.item() / first, w_forget.item() / second
    assert weights_of(Nash(), *gradients) == pytest.approx(expected, rel=1e-6)


@given(pairs(["random", "aligned", "orthogonal"], 6, 6))
def test_no_direction_of_the_circle_is_a_better_bargain_than_nash_s(gradients: tuple[Tensor, Tensor]) -> None:
    """The product of both gains, over 2,000 directions of the plane that the two span."""
    first, second = (g / g.norm() for g in gradients)
    across = second - torch.dot(first, second) * first
    across = across / across.norm() if across.norm() > 1e-9 else torch.zeros_like(first)
    angles = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)[:, None]
    circle = angles.cos() * first + angles.sin() * across
    gains = (circle @ first).clamp(min=0) * (circle @ second).clamp(min=0)
    direction = combination(Nash(), *gradients)[0] / 2**0.5
    own = torch.dot(direction, first) * torch.dot(direction, second)
    assert own >= gains.max() - 1e-9
