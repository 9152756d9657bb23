"""One way of batch norm in every look at a loss within a step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from erase.classification.batch_norm import evaluate, has_batch_norm, running_statistics
from erase.classification.losses import AdaptiveAscent, CrossEntropy, GradientAscent
from erase.errors import UserError
from erase.protocols import Shard, UpdateRule, UpdateState
from erase.training.loop import TrainingRun
from erase.training.settings import TrainingSettings
from erase.updates import LUR, AlternatingSteps, ForgetOnly, RetainOnly, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from erase.updates.lur import coin
from tests.properties import assert_same_bits
from tests.unit.classification.unlearnings import gradient, linear, make_task, train, two_layers

MODES: list[Literal["frozen", "batch"]] = ["frozen", "batch"]
ALPHA = AbsoluteAlpha(value=0.2)
RULES: dict[str, UpdateRule] = {
    "weighted_sum": WeightedSum(),
    "chained": LUR(mode="chained", alpha=ALPHA),
    "exact": LUR(mode="exact", alpha=ALPHA),
    "first_order": LUR(mode="first_order", alpha=ALPHA),
    "alternating": LUR(mode="alternating", alpha=ALPHA),
    "retain_only": RetainOnly(),
}
FIRST = {coin(UpdateState(step=step)): step for step in range(8)}
"""A step at which `alternating` retains first, and one at which it forgets first."""


def pictures(count: int = 5) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(4))


def statistics(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in running_statistics(model).values()]


def test_frozen_uses_the_running_statistics_and_leaves_them() -> None:
    model = two_layers()
    model.get_buffer("norm.running_mean").fill_(0.5)
    before = statistics(model)
    found = evaluate(model, pictures(), track=True)
    hidden = model.get_submodule("conv")(pictures())
    scaled = torch.relu((hidden - 0.5) / (1 + 1e-5) ** 0.5).flatten(1)
    torch.testing.assert_close(found, model.get_submodule("fc")(scaled))
    assert_same_bits(statistics(model), before)


def test_batch_uses_those_of_the_batch() -> None:
    model = two_layers()
    hidden = model.get_submodule("conv")(pictures())
    mean, var = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), keepdim=True, unbiased=False)
    scaled = torch.relu((hidden - mean) / (var + 1e-5).sqrt()).flatten(1)
    torch.testing.assert_close(evaluate(model, pictures(), batch_norm="batch"), model.get_submodule("fc")(scaled))


def test_running_statistics_follow_a_batch_only_when_told_to() -> None:
    model = two_layers()
    before = statistics(model)
    evaluate(model, pictures(), batch_norm="batch", track=False)
    assert_same_bits(statistics(model), before)
    evaluate(model, pictures(), batch_norm="batch", track=True)
    mean = model.get_submodule("conv")(pictures()).mean((0, 2, 3))
    torch.testing.assert_close(model.get_buffer("norm.running_mean"), 0.1 * mean)
    assert model.get_buffer("norm.num_batches_tracked") == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_same_loss_twice_is_the_same_number_dropout_or_not(mode: Literal["frozen", "batch"]) -> None:
    model = two_layers().train()
    looks = [evaluate(model.train(), pictures(), batch_norm=mode, track=track) for track in (True, False)]
    assert_same_bits([looks[1]], [looks[0]])


@pytest.mark.parametrize("mode", MODES)
def test_the_model_is_left_in_evaluation_mode_with_its_layers_as_they_were(mode: Literal["frozen", "batch"]) -> None:
    model = two_layers().train()
    evaluate(model, pictures(), batch_norm=mode)
    assert not any(module.training for module in model.modules())
    assert model.get_submodule("norm").track_running_stats


def test_a_layer_that_tracks_nothing_stays_so() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten())
    evaluate(model, pictures(), batch_norm="batch", track=True)
    assert not model[0].track_running_stats
    assert running_statistics(model) == {}


def test_what_has_batch_norm_is_known() -> None:
    assert has_batch_norm(two_layers())
    assert not has_batch_norm(linear())
    assert list(running_statistics(two_layers())) == [
        *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
    ]
    assert next(iter(running_statistics(nn.BatchNorm1d(2)))) == "running_mean"


def after_a_step(rule: UpdateRule, mode: Literal["frozen", "batch"], step: int = 0) -> list[Tensor]:
    task = train(make_task(model=two_layers(), batch_norm=mode), rule, 1, first=step)
    return statistics(task.model)


@pytest.mark.parametrize("retain_first", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_leaves_the_same_running_statistics(name: str, retain_first: bool) -> None:
    step = FIRST[retain_first]
    assert_same_bits(after_a_step(RULES[name], "batch", step), after_a_step(WeightedSum(), "batch", step))
    assert_same_bits(after_a_step(RULES[name], "frozen", step), statistics(two_layers()))


@pytest.mark.parametrize(("retain_first", "evaluations"), [(True, 2), (False, 3)])
def test_a_rule_that_forgets_first_is_charged_for_the_look_that_statistics_follow(
    retain_first: bool, evaluations: int
) -> None:
    task = make_task(model=two_layers(), batch_norm="batch")
    train(task, RULES["alternating"], 1, first=FIRST[retain_first])
    assert task.evaluations == 4 * evaluations


def test_a_step_moves_them_once_whatever_the_rule_looks_at() -> None:
    for rule in RULES.values():
        task = train(make_task(model=two_layers(), batch_norm="batch"), rule, 3)
        assert task.model.get_buffer("norm.num_batches_tracked") == 3


def test_alternating_lur_changes_no_running_statistics_when_frozen() -> None:
    task = train(make_task(model=two_layers()), LUR(mode="alternating", alpha=ALPHA), 4)
    assert_same_bits(statistics(task.model), statistics(two_layers()))


def test_forgetting_alone_never_moves_them() -> None:
    assert_same_bits(after_a_step(ForgetOnly(), "batch"), statistics(two_layers()))
    task = train(make_task(model=two_layers(), batch_norm="batch"), AlternatingSteps(), 4)
    assert task.model.get_buffer("norm.num_batches_tracked") == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forgetting", [False, True])
def test_an_objective_is_the_same_function_at_every_look(forgetting: bool, mode: Literal["frozen", "batch"]) -> None:
    task = make_task((AdaptiveAscent(), CrossEntropy()), two_layers(), batch_norm=mode)
    objective = task.objectives(0, Shard(batch_size=4))[forgetting]
    looks = [[loss.item() for loss in objective()] for _ in range(3)]
    assert looks[0] == looks[1] == looks[2]


def test_a_look_ahead_in_batch_mode_is_at_the_batch_s_own_loss() -> None:
    """chained by hand: the gradients at the shifted weights are those of a network that stands there."""
    task = make_task(model=two_layers(), batch_norm="batch")
    twin = copy.deepcopy(task.model)
    expected = chained_by_hand(twin)
    retain, forget = task.objectives(0, Shard(batch_size=4))
    parameters = list(task.trainable.values())
    LUR(mode="chained", alpha=ALPHA)(retain, forget, parameters, UpdateState())
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in parameters]), expected)


def chained_by_hand(model: nn.Module) -> Tensor:
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]

    def slope(forgetting: bool, along: Tensor | None) -> Tensor:
        other = make_task(model=model, batch_norm="batch")
        with torch.no_grad():
            shift = torch.zeros(sum(p.numel() for p in parameters)) if along is None else -0.2 * along
            for p, s, d in zip(parameters, start, shift.split([p.numel() for p in parameters]), strict=True):
                p.copy_(s + d.view_as(s))
        return gradient(other, forgetting)

    kept = slope(False, None)
    ahead = slope(True, kept)
    return ahead + slope(False, ahead)


def test_batch_needs_one_process_and_one_micro_batch_where_there_is_batch_norm() -> None:
    for shard in (Shard(micro_batches=2, batch_size=2), Shard(processes=2, batch_size=2)):
        with pytest.raises(UserError, match="batch_norm: batch takes the statistics of a whole step"):
            make_task(model=two_layers(), batch_norm="batch").objectives(0, shard)
        make_task(batch_norm="batch").objectives(0, shard)
        make_task(model=two_layers()).objectives(0, shard)


@pytest.mark.parametrize(("update", "stay"), [(ForgetOnly(), True), (WeightedSum(), False)])
def test_statistics_stay_under_a_rule_that_never_looks_at_what_is_kept(update: UpdateRule, stay: bool) -> None:
    task = make_task(model=two_layers(), batch_norm="batch")
    before, weights = statistics(task.model), [p.detach().clone() for p in task.model.parameters()]
    retain, forget = task.objectives(0, Shard(batch_size=4))
    update(retain, forget, list(task.trainable.values()), UpdateState())
    assert all(map(torch.equal, statistics(task.model), before)) is stay
    assert all(map(torch.equal, task.model.parameters(), weights))


@pytest.mark.parametrize("update", [ForgetOnly(), AlternatingSteps(), WeightedSum()], ids=lambda rule: rule.name)
def test_a_probe_moves_neither_statistics_nor_weights(update: UpdateRule, tmp_path: Path) -> None:
    """ForgetOnly never looks at the retain batch, which running statistics follow; a probe does."""
    found = []
    for probe_every in (0, 1):
        given = {"max_train_steps": 3, "train_batch_size": 2, "learning_rate": 0.1, "probe_every": probe_every}
        settings = TrainingSettings(output_dir=tmp_path / str(probe_every), update=update, **given)  # type: ignore[arg-type]
        settings.output_dir.mkdir()
        task = make_task(model=two_layers(), batch_norm="batch")
        TrainingRun(task, settings, Accelerator(), {}).train()
        found.append([*statistics(task.model), *(p.detach() for p in task.model.parameters())])
    assert_same_bits(found[1], found[0])


def test_gradient_ascent_in_batch_mode_differs_from_frozen() -> None:
    """Or the tests above would show nothing."""
    losses = (GradientAscent(), CrossEntropy())
    one, other = (gradient(make_task(losses, two_layers(), batch_norm=mode), True) for mode in MODES)
    assert (one - other).norm() > 0.01
