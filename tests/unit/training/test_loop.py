"""The loop on a real tiny UNet: steps, checkpoints, interruption and what is not finite."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase.errors import UserError
from erase.protocols import Diagnostics
from erase.training.interruption import Interrupted
from erase.training.step_log import read_log
from erase.updates import LUR, AlternatingSteps, PCGrad, TorchJD, WeightedSum
from tests.properties import assert_same_bits
from tests.unit.training.runs import make_run, weights

FACTS = {
    "step",
    "retain_loss",
    "forget_loss",
    "retain_norm",
    "forget_norm",
    "cosine",
    "evaluations",
    "alpha",
    "correction",
    "learning_rate",
    "conflict_share",
    "inner_before",
    "inner_after",
    "cosine_before",
    "cosine_after",
    *(
        f"{name}/{stage}.attention"
        for name in ("cosine", "retain_norm", "forget_norm", "correction", "conflict_share")
        for stage in ("down", "mid", "up")
    ),
}


@pytest.fixture(autouse=True)
def restored_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_every_step_is_logged_and_checkpoints_come_at_their_interval(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = weights(run)
    assert run.train().gradient_evaluations == (1 + 4) * 3  # LUR's chained mode, and its look for alpha
    log = read_log(tmp_path)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert all(set(line) == FACTS for line in log)
    assert log[0]["retain_loss"] == 0.0 and log[1]["retain_loss"] > 0
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    assert all(not torch.equal(p, b) for p, b in zip(weights(run), before, strict=True))


def test_no_sketch_of_a_step_is_held_during_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small tensors a sketch is as long as the gradient, and a chained step makes four."""
    run, seen, alive = make_run(tmp_path), list[weakref.ref[Tensor]](), list[int]()
    numbers = run.blocks.numbers

    def watched(diagnostics: Diagnostics, weight: float) -> Any:
        made = (*diagnostics.sketches, *(diagnostics.correction_sketches or ()))
        seen[:] = [weakref.ref(sketch) for sketch in made if sketch is not None]
        return numbers(diagnostics, weight)

    monkeypatch.setattr(run.blocks, "numbers", watched)
    run.task.before = lambda _: alive.append(sum(sketch() is not None for sketch in seen))
    run.train()
    assert len(seen) == 4
    assert alive == [0] * 4


def test_the_last_step_is_saved_whatever_the_interval(tmp_path: Path) -> None:
    make_run(tmp_path, checkpointing_steps=3).train()
    assert checkpoints(tmp_path) == ["checkpoint-3", "checkpoint-4"]


def test_the_forget_loss_falls(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_train_steps=30, update=WeightedSum(), checkpointing_steps=100)
    run.train()
    losses = [line["forget_loss"] for line in read_log(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_run_is_repeatable(tmp_path: Path) -> None:
    first, again, other = (make_run(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    for run in (first, again, other):
        run.train()
    assert_same_bits(weights(first), weights(again))
    assert read_log(tmp_path / "0") == read_log(tmp_path / "1") != read_log(tmp_path / "2")


@pytest.mark.parametrize(
    "update",
    [
        LUR(),
        LUR(mode="alternating"),
        LUR(combine=PCGrad()),
        WeightedSum(),
        AlternatingSteps(),
        AlternatingSteps(rule=LUR()),
    ],
    ids=["chained", "alternating", "combined", "sum", "steps", "steps of lur"],
)
def test_a_resumed_run_ends_where_a_whole_one_does_bit_for_bit(tmp_path: Path, update: Any) -> None:
    whole = make_run(tmp_path / "whole", update=update, probe_every=3)
    cost = whole.train()
    stopped = make_run(tmp_path / "stopped", update=update, probe_every=3)
    stopped.task.before = lambda step: signal.raise_signal(signal.SIGTERM) if step == 1 else None
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = make_run(tmp_path / "stopped", update=update, probe_every=3, resume_from_checkpoint="latest")
    resumed.resume()
    assert resumed.state.step == 2
    assert replace(resumed.train(), seconds=cost.seconds) == cost, "both parts count"
    assert_same_bits(weights(resumed), weights(whole))
    assert resumed.state == whole.state
    assert read_log(tmp_path / "stopped") == read_log(tmp_path / "whole")


def test_the_log_has_the_learning_rate_that_a_step_took(tmp_path: Path) -> None:
    make_run(tmp_path, lr_scheduler="linear", learning_rate=0.01).train()
    assert [line["learning_rate"] for line in read_log(tmp_path)] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    run = make_run(tmp_path, checkpointing_steps=100)
    run.task.before = lambda step: signal.raise_signal(number) if step == 2 else None
    with pytest.raises(Interrupted) as caught:
        run.train()
    assert caught.value.exit_code == code
    assert str(caught.value).startswith("Interrupted after step 3 of 4; saved")
    assert str(caught.value).endswith("--resume_from_checkpoint latest")
    assert checkpoints(tmp_path) == ["checkpoint-3"]
    assert len(read_log(tmp_path)) == 3


def test_a_run_whose_rule_remembers_is_not_told_to_go_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, update=TorchJD(aggregator="PCD"))
    run.task.before = lambda step: signal.raise_signal(signal.SIGINT) if step == 1 else None
    with pytest.raises(Interrupted, match=r"It cannot go on: what update.aggregator remembers of past steps"):
        run.train()


def test_a_signal_in_the_last_step_does_not_spoil_the_end(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.task.before = lambda step: signal.raise_signal(signal.SIGINT) if step == 3 else None
    run.train()
    assert run.state.step == 4
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-4"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    run = make_run(tmp_path)

    def spoil(step: int) -> None:
        if step == 3:
            with torch.no_grad():
                run.parameters[-1][0, 0] = float("nan")
            kept.extend(weights(run))

    kept: list[Tensor] = []
    run.task.before = spoil
    with pytest.raises(UserError) as caught:
        run.train()
    loss, prompts, remedy = caught.value.problems
    assert loss.startswith("step 4: the loss is not finite: forget nan, retain ")
    assert prompts == f"the batch: {'; '.join(run.task.describe_batch(3, run.shard))}"
    assert str(tmp_path / "checkpoint-2") in remedy and "learning_rate" in remedy
    assert_same_bits(weights(run), kept)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    make_run(tmp_path, checkpointing_steps=1, checkpoints_total_limit=2).train()
    assert checkpoints(tmp_path) == ["checkpoint-3", "checkpoint-4"]


def test_gathering_micro_batches_is_one_batch_before_they_are_combined(tmp_path: Path) -> None:
    given = {"max_train_steps": 3, "optimizer": "sgd", "learning_rate": 0.1}
    whole = make_run(tmp_path / "whole", train_batch_size=2, **given)
    parts = make_run(tmp_path / "parts", train_batch_size=1, gradient_accumulation_steps=2, **given)
    start = weights(whole)
    for run in (whole, parts):
        run.train()
    for a, b, p in zip(weights(parts), weights(whole), start, strict=True):
        moved = (b - p).norm()
        assert moved > 0
        assert (a - b).norm() < 1e-3 * moved  # float32 rounds a sum over two passes otherwise than over a batch


def test_clipping_bounds_the_combined_gradient(tmp_path: Path) -> None:
    given = {"optimizer": "sgd", "adam_beta1": 0.0, "learning_rate": 1.0, "max_train_steps": 1, "update": WeightedSum()}
    free, clipped = make_run(tmp_path / "free", **given), make_run(tmp_path / "clipped", max_grad_norm=1e-3, **given)
    moved = []
    for run in (free, clipped):
        before = weights(run)
        run.train()
        moved.append(nn.utils.get_total_norm([a - b for a, b in zip(weights(run), before, strict=True)]).item())
    assert moved[0] > 2e-3
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_log_shows_the_forget_loss_without_its_weight(tmp_path: Path) -> None:
    for weight in (1.0, 3.0):
        make_run(tmp_path / str(weight), forget_weight=weight, max_train_steps=1).train()
    plain, heavy = (read_log(tmp_path / str(weight))[0] for weight in (1.0, 3.0))
    assert heavy["forget_loss"] == pytest.approx(plain["forget_loss"])
    assert heavy["forget_norm"] == pytest.approx(plain["forget_norm"])


def test_a_checkpoint_of_another_batch_size_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path).train()
    other = make_run(tmp_path, train_batch_size=3, resume_from_checkpoint="latest")
    with pytest.raises(UserError, match="total_batch: 2 then, 3 now"):
        other.resume()


def test_a_finished_run_that_is_resumed_has_nothing_to_do(tmp_path: Path) -> None:
    first = make_run(tmp_path)
    first.train()
    again = make_run(tmp_path, resume_from_checkpoint="latest")
    again.resume()
    assert again.train().gradient_evaluations == again.cost_before.gradient_evaluations == (1 + 4) * 3
    assert again.task.evaluations == 0
    assert_same_bits(weights(again), weights(first))
    assert len(read_log(tmp_path)) == 4
