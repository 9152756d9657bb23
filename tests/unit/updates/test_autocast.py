"""Under bfloat16 autocast with float32 masters, each rule's update is float32's, but for what its gradients lose."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity

from erase.gradients import clear, gather, gradients, parameter_norm, preserved, shift
from erase.protocols import Objective, UpdateRule, UpdateState
from erase.updates import (
    LUR,
    MGDA,
    AlternatingSteps,
    CAGrad,
    GradientProjection,
    Nash,
    PCGrad,
    TorchJD,
    UPGrad,
    WeightedSum,
    alpha,
)
from erase.updates.alpha import AbsoluteAlpha, CorrectionAlpha
from erase.updates.gram import gram_of
from erase.updates.lur import coin
from tests.properties import assert_parameters_restored
from tests.unit.updates.every_rule import ALPHA, RULES
from tests.unit.updates.problems import HEADS, Problem
from tests.unit.updates.tiny_problem import unet_problem

HALF_ULP = 2**-24
"""Of float32, relative."""
ROUNDED = 2**-8 * 3**-0.5 * (3 / 8 / math.log(2)) ** 0.5
"""The root mean square of what bfloat16 loses of a number, relative. At m 2^e with m in [1, 2) it is off by anything up
to 2^-8 / m, so by 2^-8 / sqrt(3) / m in the mean; and of m, whose logarithm may be anything, the mean of 1/m^2 is
(1 - 1/4) / (2 log 2)."""
ROUNDINGS = 6
"""Of a layer: its input, its weights and its output, forward and backward."""
Tensors = list[Tensor]
GIVEN = [name for name in RULES if "sought" not in name]
"""An alpha that is sought follows what is measured, which is in each precision its own."""


def apart(problem: Problem, objective: Objective, along: Tensors | None = None, length: float = 0.0) -> Tensors:
    """An objective's gradient alone, at theta + length * along."""
    with preserved(problem.parameters):
        if along is not None:
            shift(problem.parameters, along, length)
        clear(problem.parameters)
        gather(objective, problem.parameters)
        return [g.clone() for g in gradients(problem.parameters)]


def curvature(problem: Problem, vector: Tensors) -> Tensors:
    """The retain loss's Hessian times a vector."""
    (loss,) = problem.retain()
    slopes = torch.autograd.grad(loss, problem.parameters, create_graph=True)
    inner = torch.stack([(s * v).sum() for s, v in zip(slopes, vector, strict=True)]).sum()
    return list(torch.autograd.grad(inner, problem.parameters, materialize_grads=True))


def two_gradients(problem: Problem, rule: UpdateRule, step: int) -> tuple[Tensors, Tensors, Tensors]:
    """What the rule combines, each gathered on its own; and what of the first is not a gradient but curvature."""
    retain, forget = (partial(apart, problem, objective) for objective in (problem.retain, problem.forget))
    none = [torch.zeros_like(p) for p in problem.parameters]
    if not isinstance(rule, LUR):
        return retain(), forget(), none
    alpha, measured = ALPHA.value, rule.measure_every == 1 and step > 0
    if rule.mode == "alternating" and not measured:
        if coin(UpdateState(step=step)):
            return (kept := retain()), forget(kept, -2 * alpha), none
        return retain((ahead := forget()), -2 * alpha), ahead, none
    kept = retain()
    ahead = forget(kept, -alpha)
    if rule.mode == "first_order":
        return kept, ahead, none
    if rule.mode == "exact":
        curved = [-alpha * c.double() for c in curvature(problem, ahead)]
        return [k + c for k, c in zip(kept, curved, strict=True)], ahead, curved
    return retain(ahead, -alpha), ahead, none


def weights(rule: UpdateRule, step: int, retain: Tensors, forget: Tensors) -> tuple[float, float]:
    """The rule's factors on the two gradients, from its Gram matrix."""
    gram = gram_of(retain, forget)
    if isinstance(rule, AlternatingSteps) and rule.rule is not None:
        return weights(rule.rule, step, retain, forget)
    if isinstance(rule, LUR):
        return weights(rule.combine, step, retain, forget)
    if isinstance(rule, PCGrad | UPGrad | MGDA | CAGrad | Nash | GradientProjection):
        return rule.weights(gram)
    if isinstance(rule, TorchJD):
        matrix = torch.tensor([[gram.retain, gram.inner], [gram.inner, gram.forget]], dtype=torch.float64)
        first, second = rule.module.gramian_weighting(matrix).tolist()
        return first, second
    return (1.0, 1.0) if isinstance(rule, WeightedSum) else (float(step % 2), float(step % 2 == 0))


@pytest.mark.parametrize("name", [name for name in GIVEN if name != "torchjd ConFIG"])  # its weights are not to be had
def test_under_autocast_an_update_is_made_of_its_gradients_in_float32(name: str) -> None:
    (rule, step), (_, problem) = RULES[name], unet_problem(autocast=True)
    with assert_parameters_restored(problem.parameters):
        problem.run(rule, step)
    found = gradients(problem.parameters)
    assert {g.dtype for g in found} == {torch.float32}
    with sdpa_kernel(SDPBackend.MATH) if isinstance(rule, LUR) and rule.mode == "exact" else nullcontext():
        retain, forget, curved = two_gradients(problem, rule, step)
    w_retain, w_forget = weights(rule, step, retain, forget)
    for g, r, f, c in zip(found, retain, forget, curved, strict=True):
        parts = [w_retain * (r - c).double(), w_retain * c.double(), w_forget * f.double()]
        # float32 rounds each part and each of two sums: no entry is rounded more than four times
        assert ((g - sum(parts)).abs() <= 4 * HALF_ULP * sum(part.abs() for part in parts)).all()


def test_autocast_does_change_the_gradients() -> None:
    """Or the test above would show nothing: bfloat16 rounds by 2^-8, not by 2^-24."""
    rough, fine = (unet_problem(autocast)[1].gradient(WeightedSum()) for autocast in (True, False))
    assert (rough - fine).norm() > 2**-12 * fine.norm()


# Against float32


@cache
def lost() -> float:
    """What bfloat16 leaves uncertain of a gradient, as a share of its norm.

    The roundings of all layers, one after the other, are independent and add up as their squares do; the layers
    themselves pass them on much as they pass on the signal, since every one is normalised. 0.037 with 83 layers.
    """
    layers = [part for part in unet_problem()[0].modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return ROUNDED * math.sqrt(ROUNDINGS * len(layers))


@cache
def update(name: str, autocast: bool) -> Tensor:
    """What the rule makes of the UNet's two losses, in float64."""
    return unet_problem(autocast)[1].gradient(*RULES[name]).double()


def combination(rule: UpdateRule, step: int) -> Callable[[Tensor, Tensor], Tensor]:
    """How the rule puts two gradients together."""
    inner = rule.rule if isinstance(rule, AlternatingSteps) and rule.rule is not None else rule
    combines = inner.combine if isinstance(inner, LUR) else inner

    def combined(retain: Tensor, forget: Tensor) -> Tensor:
        if not hasattr(combines, "combine"):
            return (step % 2) * retain + (1 - step % 2) * forget
        result = forget.clone()
        combines.combine([retain.clone()], [result], UpdateState())
        return result

    return combined


def sensitivity(combined: Callable[[Tensor, Tensor], Tensor], retain: Tensor, forget: Tensor) -> tuple[float, float]:
    """How much a combination moves for a small move of either gradient, at most: two spectral norms.

    A plane and one direction across it are enough, as the rules are the same in all of those.
    """
    cosine = cosine_similarity(retain, forget, dim=0).item()
    lengths = torch.stack([retain.norm(), forget.norm()])
    units = torch.tensor([[1.0, 0.0, 0.0], [cosine, math.sqrt(1 - cosine**2), 0.0]], dtype=torch.float64)
    plain, found = lengths[:, None] * units, []
    for side in (0, 1):
        columns, small = [], 1e-5 * lengths[side]
        for entry in range(3):
            moved = [plain.clone(), plain.clone()]
            moved[0][side, entry] += small
            moved[1][side, entry] -= small
            columns.append((combined(*moved[0]) - combined(*moved[1])) / (2 * small))
        found.append(torch.linalg.matrix_norm(torch.stack(columns), 2).item())
    return found[0], found[1]


@cache
def tolerance(name: str) -> float:
    """What may be lost of the update: of each gradient, of the curvature twice, as the rule passes it on."""
    (rule, step), (_, problem) = RULES[name], unet_problem()
    with sdpa_kernel(SDPBackend.MATH) if isinstance(rule, LUR) and rule.mode == "exact" else nullcontext():
        retain, forget, curved = (
            torch.cat([part.reshape(-1) for part in side]).double() for side in two_gradients(problem, rule, step)
        )
    of_retain, of_forget = sensitivity(combination(rule, step), retain, forget)
    uncertain = (retain - curved).norm() + 2 * curved.norm()
    return lost() * (of_retain * uncertain + of_forget * forget.norm()).item()


@pytest.mark.parametrize("name", GIVEN)
def test_an_update_under_autocast_is_float32_s_but_for_what_its_gradients_lose(name: str) -> None:
    off = (update(name, True) - update(name, False)).norm().item()
    assert 0 < off <= tolerance(name)


def other_rule(name: str) -> str:
    """What one would get with a part of the rule left out."""
    opposite = {
        "weighted_sum": "pcgrad",
        "alternating_steps to forget": "alternating_steps to retain",
        "alternating_steps to retain": "alternating_steps to forget",
        "retain_only": "forget_only",
        "forget_only": "retain_only",
    }
    return opposite.get(name, "weighted_sum")


@pytest.mark.parametrize("name", GIVEN)
def test_another_rule_s_update_is_out_of_that_tolerance(name: str) -> None:
    """Or the test above would show nothing."""
    assert (update(other_rule(name), True) - update(name, False)).norm().item() > tolerance(name)


def sought(autocast: bool) -> float:
    """The alpha that is found before the first step."""
    _, problem = unet_problem(autocast=autocast)
    return problem.run(LUR(alpha=CorrectionAlpha(max_displacement=1.0))).alpha or 0.0


def test_a_look_under_autocast_finds_float32_s_alpha_roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter one would measure rounding: what is no correction then looks like one."""
    assert 0.5 < sought(True) / sought(False) < 2
    monkeypatch.setattr(alpha, "LOOK", 1e-5)
    assert sought(True) / sought(False) < 0.2


# LUR's own part


MODES = ["chained", "exact", "alternating", "first_order"]


def changes(mode: Any, alpha: float) -> list[Tensor]:
    """What the look-ahead changes of the plain sum, as a share of its norm: in float32, and under autocast."""
    found = []
    for autocast in (False, True):
        problem = unet_problem(autocast)[1]
        plain = problem.gradient(WeightedSum()).double()
        rule = LUR(mode=mode, alpha=AbsoluteAlpha(value=alpha), measure_every=0)
        found.append((problem.gradient(rule, HEADS).double() - plain) / plain.norm())
    return found


def norms() -> tuple[float, float]:
    """Of the retain and of the forget gradient."""
    return update("retain_only", False).norm().item(), update("forget_only", False).norm().item()


def noise(mode: str) -> float:
    """What such a change may be rounding's: the gradients that are taken elsewhere are rounded anew, twice each."""
    retain, forget = norms()
    anew = math.hypot(retain, forget) if mode in ("chained", "exact") else forget
    return math.sqrt(2) * lost() * anew / update("weighted_sum", False).norm().item()


def of_a_millionth() -> float:
    """The alpha at which `chained` displaces the parameters by 1e-6 of their norm."""
    return 1e-6 * parameter_norm(unet_problem()[1].parameters) / max(norms())


@pytest.mark.parametrize("mode", MODES)
def test_at_the_default_ratio_a_look_ahead_changes_under_autocast_what_it_changes_in_float32(mode: str) -> None:
    """Alpha is the one at which `chained` has that ratio. Noise across a change turns it by their quotient at most."""
    tried = unet_problem()[1].run(LUR(alpha=AbsoluteAlpha(value=1e-3)))
    assert tried.correction
    fine, rough = changes(mode, 1e-3 * CorrectionAlpha().ratio / tried.correction)
    turned = math.asin(noise(mode) / fine.norm().item())
    assert cosine_similarity(fine, rough, dim=0) >= math.cos(turned) > 0.7


@pytest.mark.parametrize("mode", MODES)
def test_at_a_displacement_of_a_millionth_the_change_is_lost_in_rounding(mode: str) -> None:
    """What is seen then is rounding: 1 to 5 % of the sum, several times the change."""
    fine, rough = changes(mode, of_a_millionth())
    assert fine.norm() < 0.01 < rough.norm() < noise(mode)
    assert cosine_similarity(fine, rough, dim=0).abs() < 0.5


def test_the_controller_at_its_default_ratio_does_not_take_that_rounding_for_a_correction() -> None:
    """It goes on growing while it measures less than the ratio; at a ratio of 0.01 it would stay where it is."""
    seen = unet_problem(autocast=True)[1].run(LUR(alpha=AbsoluteAlpha(value=of_a_millionth())))
    assert seen.correction
    assert 0.01 < seen.correction < CorrectionAlpha().ratio / 2
