"""How a batch is cut up, and how the model computes, changes no update: every rule, in every mode."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from erase.gradients import clear, gather, gradients, preserved, shift
from erase.protocols import Objective, UpdateRule, UpdateState
from erase.updates import LUR, MGDA, UPDATES, CAGrad, GradientProjection, Nash, PCGrad, TorchJD, UPGrad, WeightedSum
from erase.updates.gram import gram_of
from erase.updates.lur import coin
from tests.properties import assert_parameters_restored, assert_same_bits
from tests.unit.updates import many_processes
from tests.unit.updates.every_rule import ALPHA, RULES
from tests.unit.updates.opposed import Opposed
from tests.unit.updates.problems import Problem, flat_gradient
from tests.unit.updates.tiny_problem import unet_problem

PROCESSES = (1, 2, 4)
ROUNDING: dict[str, Any] = {"rtol": 0, "atol": 1e-13}
"""An entry of a gradient is a sum of 12 float64 terms whose sizes sum to 1.2 at the most, so that in another order it
is off by less than 2 * 11 * 2^-53 * 1.2 = 3e-15. What is made of two gradients is off by less than 20 times that: the
largest weight here is PCGrad's 2, and the look-ahead passes on alpha = 0.1 times a Hessian of norm 1.8 at the most."""
TOLD = 1e-11
"""Of the telemetry, relative: its least figure is a correction of 0.01, the difference of gradients off by 1e-13."""
HALF_ULP = 2**-24
"""Of float32, relative."""
Reports = dict[int, list[dict[str, Any]]]
Tensors = list[Tensor]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return {count: many_processes.run(tmp_path_factory.mktemp("processes"), count) for count in PROCESSES}


def test_every_rule_of_the_table_is_here() -> None:
    assert {type(rule) for rule, _ in RULES.values()} == set(UPDATES.values())


def test_the_two_objectives_conflict() -> None:
    for problem in (Opposed().problem(), unet_problem()[1]):
        cosine = problem.run(WeightedSum()).cosine
        assert cosine is not None
        assert cosine < -0.1


@pytest.mark.parametrize("micro_batches", [2, 3, 4])
@pytest.mark.parametrize("name", RULES)
def test_micro_batches_equal_one_batch(name: str, micro_batches: int) -> None:
    whole, parts = (Opposed().problem(count).gradient(*RULES[name]) for count in (1, micro_batches))
    torch.testing.assert_close(parts, whole, **ROUNDING)


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("name", RULES)
def test_processes_equal_one_with_the_whole_batch(reports: Reports, name: str, processes: int) -> None:
    (rule, step), problem = RULES[name], Opposed().problem()
    state = UpdateState(step=step)
    seen = rule(problem.retain, problem.forget, problem.parameters, state)
    sketches = [sketch for sketch in seen.sketches if sketch is not None]
    for report in reports[processes]:
        found = report["rules"][name]
        torch.testing.assert_close(found["gradient"], flat_gradient(problem.parameters), **ROUNDING)
        torch.testing.assert_close(found["sketches"], sketches, **ROUNDING)
        assert found["numbers"] == pytest.approx(many_processes.numbers(seen, state), rel=TOLD)


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("name", RULES)
def test_every_process_arrives_at_the_same_bits(reports: Reports, name: str, processes: int) -> None:
    first, *others = (report["rules"][name] for report in reports[processes])
    for other in others:
        assert_same_bits([other["gradient"], *other["sketches"]], [first["gradient"], *first["sketches"]])
        assert other["numbers"] == first["numbers"]


@pytest.mark.parametrize("name", RULES)
def test_all_reduces_of_an_update_do_not_grow_with_the_number_of_tensors(reports: Reports, name: str) -> None:
    """One for the gradient and one for the loss at each evaluation; `exact` averages its curved part without a loss."""
    rule, _ = RULES[name]
    needed = 2 * reports[2][0]["rules"][name]["numbers"]["evaluations"]
    needed -= isinstance(rule, LUR) and rule.mode == "exact"
    for count in (2, 4):
        for report in reports[count]:
            assert report["rules"][name]["calls"] == [needed, needed]


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
    if isinstance(rule, LUR):
        return weights(rule.combine, step, retain, forget)
    if isinstance(rule, PCGrad | UPGrad | MGDA | CAGrad | Nash | GradientProjection):
        return rule.weights(gram)
    if isinstance(rule, TorchJD):
        matrix = torch.tensor([[gram.retain, gram.inner], [gram.inner, gram.forget]], dtype=torch.float64)
        first, second = rule.module.gramian_weighting(matrix).tolist()
        return first, second
    return (1.0, 1.0) if isinstance(rule, WeightedSum) else (float(step % 2), float(step % 2 == 0))


@pytest.mark.parametrize("name", [name for name in RULES if name != "torchjd ConFIG"])  # its weights are not to be had
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
    """Or the test above would show nothing: bfloat16 rounds by 2^-9, not by 2^-24."""
    rough, fine = (unet_problem(autocast)[1].gradient(WeightedSum()) for autocast in (True, False))
    assert (rough - fine).norm() > 2**-12 * fine.norm()


@pytest.mark.parametrize("name", RULES)
def test_gradient_checkpointing_changes_no_bit(name: str) -> None:
    plain, thrifty = (unet_problem(checkpointing=given)[1].gradient(*RULES[name]) for given in (False, True))
    assert_same_bits([thrifty], [plain])


def test_gradient_checkpointing_does_compute_anew() -> None:
    """Or the test above would show nothing."""
    counts = []
    for checkpointing in (False, True):
        unet, problem = unet_problem(checkpointing=checkpointing)
        passes: list[nn.Module] = []
        block = cast(Any, unet).down_blocks[0].resnets[0]
        block.register_forward_pre_hook(lambda module, _, passes=passes: passes.append(module))
        problem.run(WeightedSum())
        counts.append(len(passes))
    assert counts == [2, 4]
