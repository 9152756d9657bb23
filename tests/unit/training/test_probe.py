"""Looks at <g_f, g_r> before and after an update: when, equal to what, and that a run is the same without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from erase.diffusion.blocks import block_of
from erase.training.step_log import read_log
from erase.updates import AlternatingSteps, WeightedSum
from tests.properties import assert_same_bits
from tests.unit.training.runs import WatchedRun, make_run, weights

BLOCKS = ["down.attention", "mid.attention", "up.attention"]
PROBED = {f"{name}/{block}" for name in ("inner_before", "inner_after") for block in BLOCKS}


def flat_gradient(run: WatchedRun, number: int, step: int) -> list[Tensor]:
    """Of the step's retain (0) or forget (1) objective at the present weights, in float64."""
    loss = torch.stack(list(run.task.objectives(step, run.shard)[number]())).sum()
    return [g.double() for g in torch.autograd.grad(loss, run.parameters)]


def inner_products(run: WatchedRun, step: int, weight: float) -> dict[str, float]:
    """<g_f, g_r> of the step's batch by block, by autograd, the weight taken out."""
    retain, forget = (flat_gradient(run, number, step) for number in (0, 1))
    found = dict.fromkeys(BLOCKS, 0.0)
    for name, r, f in zip(run.task.trainable, retain, forget, strict=True):
        found[block_of(name)] += (r * f).sum().item() / weight
    return found


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_the_probe_sees_the_step_s_batch_before_and_after_its_update(tmp_path: Path, weight: float) -> None:
    given = {"update": WeightedSum(), "forget_weight": weight, "optimizer": "sgd", "learning_rate": 0.1}
    probed = make_run(tmp_path / "probed", max_train_steps=3, probe_every=2, **given)
    probed.train()
    line = read_log(tmp_path / "probed")[1]
    for name, steps in (("inner_before", 1), ("inner_after", 2)):
        apart = make_run(tmp_path / name, max_train_steps=steps, probe_every=0, **given)
        apart.train()
        expected = inner_products(apart, 1, weight)
        assert {block: line[f"{name}/{block}"] for block in BLOCKS} == pytest.approx(expected, rel=1e-4)
        assert line[name] == pytest.approx(sum(expected.values()), rel=1e-4)
    assert line["inner_after"] != line["inner_before"]


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (5, [])])
def test_a_probe_comes_every_so_many_steps(tmp_path: Path, every: int, expected: list[int]) -> None:
    make_run(tmp_path, probe_every=every).train()
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines if line["inner_before"] is not None] == expected
    assert [line["step"] for line in lines if line["inner_after"] is not None] == expected
    assert [line["step"] for line in lines if set(line) >= PROBED] == expected
    assert all(PROBED.isdisjoint(line) for line in lines if line["step"] not in expected)


@pytest.mark.parametrize("update", [WeightedSum(), AlternatingSteps()], ids=lambda update: update.name)
def test_a_run_is_the_same_with_and_without_probes(tmp_path: Path, update: WeightedSum | AlternatingSteps) -> None:
    runs = [make_run(tmp_path / str(every), update=update, probe_every=every) for every in (0, 1)]
    costs = [run.train() for run in runs]
    assert_same_bits(weights(runs[0]), weights(runs[1]))
    assert costs[0].gradient_evaluations == costs[1].gradient_evaluations
    logs = [
        [{key: value for key, value in line.items() if "inner" not in key} for line in read_log(tmp_path / str(every))]
        for every in (0, 1)
    ]
    assert logs[0] == logs[1]


def test_a_first_step_that_is_its_own_teacher_has_no_inner_product_yet(tmp_path: Path) -> None:
    make_run(tmp_path, probe_every=1, max_train_steps=1).train()
    (line,) = read_log(tmp_path)
    assert line["inner_before"] == 0.0
    assert line["inner_after"] != 0.0


def test_the_share_of_steps_in_conflict_is_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_train_steps=8, update=WeightedSum(), learning_rate=0.05)
    run.train()
    conflicts = 0
    for line in read_log(tmp_path):
        conflicts += line["cosine"] < 0
        assert line["conflict_share"] == conflicts / line["step"]
    assert run.state.conflicts == conflicts


def test_steps_of_one_objective_log_nothing_of_the_other(tmp_path: Path) -> None:
    make_run(tmp_path, update=AlternatingSteps()).train()
    lines = read_log(tmp_path)
    looked_at = [(line["retain_loss"] is None, line["forget_loss"] is None, line["cosine"]) for line in lines]
    assert looked_at == [(True, False, None), (False, True, None)] * 2
    assert [line["conflict_share"] for line in lines] == [0.0] * 4
    assert not any(key.startswith("cosine/") for line in lines for key in line)
