"""How a batch is cut up among micro-batches and processes, and checkpointing, change no update: every rule and mode."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from erase.protocols import UpdateState
from erase.updates import LUR, UPDATES, WeightedSum
from tests.properties import assert_same_bits
from tests.unit.updates import many_processes
from tests.unit.updates.every_rule import RULES
from tests.unit.updates.opposed import Opposed
from tests.unit.updates.problems import flat_gradient
from tests.unit.updates.tiny_problem import unet_problem

PROCESSES = (1, 2, 4)
ROUNDING: dict[str, Any] = {"rtol": 0, "atol": 1e-13}
"""An entry of a gradient is a sum of 12 float64 terms whose sizes sum to 1.2 at the most, so that in another order it
is off by less than 2 * 11 * 2^-53 * 1.2 = 3e-15. What is made of two gradients is off by less than 20 times that: the
largest weight here is PCGrad's 2, and the look-ahead passes on alpha = 0.1 times a Hessian of norm 1.8 at the most."""
TOLD = 1e-11
"""Of the telemetry, relative: its least figure is a correction of 0.01, the difference of gradients off by 1e-13."""
Reports = dict[int, list[dict[str, Any]]]


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
