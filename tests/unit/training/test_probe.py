"""Looks at both gradients before and after an update: when, equal to what, and that a run is the same without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from erase.diffusion.blocks import block_of
from erase.training.step_log import read_log
from erase.updates import LUR, AlternatingSteps, WeightedSum
from erase.updates.alpha import DisplacementAlpha
from tests.properties import assert_same_bits
from tests.unit.training.runs import WatchedRun, make_run, weights

BLOCKS = ["down.attention", "mid.attention", "up.attention"]
PROBES = ("inner_before", "inner_after", "cosine_before", "cosine_after")
PROBED = {f"{name}/{block}" for name in PROBES for block in BLOCKS}


def flat_gradient(run: WatchedRun, number: int, step: int) -> list[Tensor]:
    """Of the step's retain (0) or forget (1) objective at the present weights, in float64."""
    loss = torch.stack(list(run.task.objectives(step, run.shard)[number]())).sum()
    return [g.double() for g in torch.autograd.grad(loss, run.parameters)]


def judged(run: WatchedRun, step: int, weight: float, when: str) -> dict[str, float]:
    """What a probe at the present weights ought to tell of the step's batch, by autograd: the weight is taken out."""
    retain, forget = (flat_gradient(run, number, step) for number in (0, 1))
    places = [block_of(name) for name in run.task.trainable]
    found: dict[str, float] = {}
    for block in ("", *BLOCKS):
        r, f = (
            torch.cat([g.flatten() for g, p in zip(side, places, strict=True) if block in ("", p)])
            for side in (retain, forget)
        )
        suffix = f"/{block}" if block else ""
        found[f"inner_{when}{suffix}"] = (r @ f).item() / weight
        found[f"cosine_{when}{suffix}"] = torch.cosine_similarity(r, f, dim=0).item()
    return found


LOOK_AHEAD = LUR(alpha=DisplacementAlpha(ratio=0.1))


@pytest.mark.parametrize(("update", "weight"), [(WeightedSum(), 1.0), (WeightedSum(), 3.0), (LOOK_AHEAD, 3.0)])
def test_the_probe_sees_the_step_s_batch_before_and_after_its_update(
    tmp_path: Path, update: WeightedSum | LUR, weight: float
) -> None:
    given = {"update": update, "forget_weight": weight, "optimizer": "sgd", "learning_rate": 0.1}
    probed = make_run(tmp_path / "probed", max_train_steps=3, probe_every=2, **given)
    probed.train()
    line = read_log(tmp_path / "probed")[1]
    for when, steps in (("before", 1), ("after", 2)):
        apart = make_run(tmp_path / when, max_train_steps=steps, probe_every=0, **given)
        apart.train()
        expected = judged(apart, 1, weight, when)
        assert {key: line[key] for key in expected} == pytest.approx(expected, rel=1e-4)
    assert line["inner_after"] != line["inner_before"] and line["cosine_after"] != line["cosine_before"]


def test_a_plain_sum_s_own_cosine_is_the_one_before_the_update_and_lur_s_is_not(tmp_path: Path) -> None:
    """LUR's forget gradient is taken at the look-ahead: of two rules, only what the probes see may be compared."""
    for update, same in ((WeightedSum(), True), (LOOK_AHEAD, False)):
        make_run(tmp_path / update.name, update=update, probe_every=1).train()
        for line in read_log(tmp_path / update.name)[1:]:
            for suffix in ("", *(f"/{block}" for block in BLOCKS)):
                there, here = line[f"cosine{suffix}"], line[f"cosine_before{suffix}"]
                assert (abs(there - here) < 1e-5) is same, (update.name, suffix)


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
        [{k: v for k, v in line.items() if not k.startswith(PROBES)} for line in read_log(tmp_path / str(every))]
        for every in (0, 1)
    ]
    assert logs[0] == logs[1]


def test_a_first_step_that_is_its_own_teacher_has_no_inner_product_yet(tmp_path: Path) -> None:
    make_run(tmp_path, probe_every=1, max_train_steps=1).train()
    (line,) = read_log(tmp_path)
    assert (line["inner_before"], line["cosine_before"]) == (0.0, 0.0)
    assert line["inner_after"] != 0.0 and line["cosine_after"] != 0.0


def test_the_share_of_steps_in_conflict_is_counted_overall_and_in_each_block(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_train_steps=8, update=WeightedSum(), learning_rate=0.05)
    run.train()
    counts = {"": run.state.conflicts} | {f"/{block}": run.state.block_conflicts[block] for block in BLOCKS}
    for suffix, counted in counts.items():
        conflicts = 0
        for line in read_log(tmp_path):
            conflicts += line[f"cosine{suffix}"] < 0
            assert line[f"conflict_share{suffix}"] == conflicts / line["step"]
        assert counted == conflicts
    assert (run.state.cosines, len(set(counts.values())) > 1) == (8, True), counts


def test_steps_of_one_objective_log_nothing_of_the_other(tmp_path: Path) -> None:
    make_run(tmp_path, update=AlternatingSteps()).train()
    lines = read_log(tmp_path)
    looked_at = [(line["retain_loss"] is None, line["forget_loss"] is None, line["cosine"]) for line in lines]
    assert looked_at == [(True, False, None), (False, True, None)] * 2
    assert [line["conflict_share"] for line in lines] == [None] * 4
    assert not any(key.startswith(("cosine/", "conflict_share/")) for line in lines for key in line)
    norms = [{key.split("/")[0] for key in line if "_norm/" in key} for line in lines]
    assert norms == [{"forget_norm"}, {"retain_norm"}] * 2


def test_a_probe_sees_both_gradients_of_a_rule_that_looks_at_one(tmp_path: Path) -> None:
    make_run(tmp_path, update=AlternatingSteps(), probe_every=2).train()
    lines = [line for line in read_log(tmp_path) if line["cosine_before"] is not None]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(set(line) >= PROBED and -1 < line["cosine_before"] < 1 for line in lines)
