"""The two objectives of a step, on tiny networks: shards, targets, counts, heads, refusals and what is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

from erase.classification.images import Images
from erase.classification.losses import (
    FORGET_LOSSES,
    RETAIN_LOSSES,
    AdaptiveAscent,
    BadTeacher,
    BoundaryExpand,
    BoundaryShrink,
    CrossEntropy,
    Distillation,
    ForgetLoss,
    GradientAscent,
    L1Sparse,
    RandomLabel,
    RetainLoss,
    TeacherDivergence,
)
from erase.classification.masks import FILE, Saliency
from erase.classification.models import ModelSettings, load_classifier, make_model
from erase.classification.starts import Scratch
from erase.classification.task import UnlearningTask
from erase.errors import UserError
from erase.parameters import CrossAttention, Full, LoRA
from erase.protocols import Objective, Shard
from erase.updates import LUR, AlternatingSteps, RetainOnly, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from tests.properties import assert_same_bits
from tests.unit.classification.unlearnings import gradient, linear, make_task, tiny_splits, train, two_layers, weights

WHOLE = Shard(batch_size=4)
PAIRS: list[tuple[ForgetLoss, RetainLoss]] = [
    *((kind(), CrossEntropy()) for kind in FORGET_LOSSES.values()),
    *((GradientAscent(), kind()) for kind in RETAIN_LOSSES.values()),
]
NAMES = [f"{forget.name}-{retain.name}" for forget, retain in PAIRS]


def moved(losses: tuple[ForgetLoss, RetainLoss] = PAIRS[0], **given: Any) -> UnlearningTask:
    """A task whose network has moved from its start."""
    task = make_task(losses, two_layers(), **({"fresh": lambda: two_layers(seed=9)} | given))
    with torch.no_grad():
        for p in task.trainable.values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return task


def loss(objective: Objective) -> float:
    with torch.no_grad():
        return sum(value.item() for value in objective())


@pytest.mark.parametrize("losses", PAIRS, ids=NAMES)
def test_micro_batches_and_processes_sum_to_one_batch(losses: tuple[ForgetLoss, RetainLoss]) -> None:
    task = moved(losses)
    for forgetting in (False, True):
        whole = gradient(task, forgetting)
        assert whole.norm() > 1e-3
        parts = gradient(task, forgetting, Shard(micro_batches=2, batch_size=2))
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
        halves = [gradient(task, forgetting, Shard(process=p, processes=2, batch_size=2)) for p in (0, 1)]
        torch.testing.assert_close(sum(halves) / 2, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("losses", PAIRS, ids=NAMES)
def test_an_objective_looked_at_twice_gives_the_same_number(losses: tuple[ForgetLoss, RetainLoss]) -> None:
    for objective in moved(losses).objectives(1, WHOLE):
        first = loss(objective)
        torch.manual_seed(99)
        assert loss(objective) == first


@pytest.mark.parametrize("losses", PAIRS, ids=NAMES)
def test_the_target_stays_while_the_weights_are_shifted(losses: tuple[ForgetLoss, RetainLoss]) -> None:
    """A loss of the student's own answers takes them where the step begins, not where it is first looked at."""
    task, fixed = moved(losses), moved(losses)
    there = [p.detach() + 0.3 for p in task.trainable.values()]
    early, late = task.objectives(0, WHOLE), fixed.objectives(0, WHOLE)
    loss(early[0]), loss(early[1])
    with torch.no_grad():
        for one in (task, fixed):
            for p, place in zip(one.trainable.values(), there, strict=True):
                p.copy_(place)
    assert [loss(objective) for objective in early] == [loss(objective) for objective in late]


def test_the_first_objective_retains_and_the_second_forgets_with_its_weight() -> None:
    plain, heavy = (moved(forget_weight=weight).objectives(0, WHOLE) for weight in (1.0, 2.5))
    assert loss(plain[0]) > 0 > loss(plain[1])
    assert loss(heavy[1]) == pytest.approx(2.5 * loss(plain[1]))
    assert loss(heavy[0]) == loss(plain[0])


def test_a_penalty_is_added_once() -> None:
    sizes = {}
    for shard in (WHOLE, Shard(micro_batches=4), Shard(process=1, processes=2, micro_batches=2)):
        task = moved((GradientAscent(), L1Sparse(gamma=2.0)))
        bare = moved()
        sizes[shard] = loss(task.objectives(0, shard)[0]) - loss(bare.objectives(0, shard)[0])
    expected = 2 * sum(p.abs().sum().item() for p in moved().trainable.values())
    assert list(sizes.values()) == pytest.approx([expected] * 3, rel=1e-5)


def test_progress_goes_with_the_steps() -> None:
    task = make_task((GradientAscent(), L1Sparse(gamma=1.0)), total_steps=4)
    bare = make_task(total_steps=4)
    norm = sum(p.abs().sum().item() for p in task.trainable.values())
    for step in range(4):
        added = loss(task.objectives(step, WHOLE)[0]) - loss(bare.objectives(step, WHOLE)[0])
        assert added == pytest.approx((1 - step / 4) * norm, rel=1e-5)


def test_the_same_step_gives_the_same_batch_and_each_epoch_all_samples() -> None:
    task, shard = make_task(), Shard(batch_size=2)
    assert task.describe_batch(1, shard) == task.describe_batch(1, shard)
    for place, part in ((0, task.splits.forget), (1, task.splits.retain)):
        lines = [task.describe_batch(step, shard)[place] for step in (0, 1)]
        names = [name for line in lines for name in line.split(": ")[1].split(", ")]
        assert sorted(names) == sorted(part.ids)
    assert task.describe_batch(0, shard)[0].startswith("forget: train")


def test_steps_in_turn_pass_through_all_samples_before_one_comes_again() -> None:
    """One forget step in four: by the number of the step its batches would skip samples."""
    rule, shard = AlternatingSteps(retain_steps=3), Shard(batch_size=2)
    task = make_task(looked=rule.looked)
    forget, retain = [
        [task.describe_batch(step, shard)[place].split(": ")[1].split(", ") for step in range(8)] for place in (0, 1)
    ]
    assert sorted(forget[0] + forget[4]) == sorted(task.splits.forget.ids)
    assert sorted(retain[1] + retain[2]) == sorted(task.splits.retain.ids) == sorted(retain[3] + retain[5])


def test_steps_of_a_rule_in_turn_pass_through_what_is_retained_at_every_step() -> None:
    rule, shard = AlternatingSteps(retain_steps=3, rule=WeightedSum()), Shard(batch_size=2)
    task = make_task(looked=rule.looked)
    seen = [task.describe_batch(step, shard) for step in range(5)]
    forget, retain = ([seen[step][place].split(": ")[1].split(", ") for step in range(5)] for place in (0, 1))
    assert sorted(forget[0] + forget[4]) == sorted(task.splits.forget.ids)
    assert sorted(retain[0] + retain[1]) == sorted(task.splits.retain.ids) == sorted(retain[2] + retain[3])


def test_learning_from_all_retains_on_the_whole_training_part() -> None:
    ids = make_task(learn_from="all").describe_batch(0, Shard(batch_size=8))[1].split(": ")[1].split(", ")
    assert sorted(ids) == sorted(tiny_splits().train.ids)


def test_random_labels_are_drawn_anew_each_step() -> None:
    task = make_task((RandomLabel(), CrossEntropy()))
    with torch.no_grad():
        values = {round(loss(task.objectives(step, WHOLE)[1]), 5) for step in range(8)}
    assert len(values) > 1


# Teachers and counts


@pytest.mark.parametrize(
    ("losses", "retain_target", "forget_target"),
    [
        ((GradientAscent(), CrossEntropy()), 0, 0),
        ((RandomLabel(), CrossEntropy()), 0, 0),
        ((BadTeacher(), Distillation()), 1, 1),
        ((BoundaryShrink(), CrossEntropy()), 0, 2),
        ((AdaptiveAscent(), CrossEntropy()), 0, 1),
    ],
)
def test_targets_are_counted_once_and_every_pass(
    losses: tuple[ForgetLoss, RetainLoss], retain_target: int, forget_target: int
) -> None:
    task = make_task(losses)
    retain, forget = task.objectives(0, Shard(micro_batches=2, batch_size=2))
    loss(retain), loss(forget), loss(retain)
    assert task.evaluations == 4 * (retain_target + forget_target + 3)


def test_an_objective_that_no_one_looks_at_costs_nothing() -> None:
    task = make_task((BoundaryShrink(), Distillation()))
    task.objectives(0, WHOLE)
    assert task.evaluations == 0
    train(make_task((BoundaryShrink(), CrossEntropy())), RetainOnly(), 1)


@pytest.mark.parametrize("losses", PAIRS, ids=NAMES)
def test_what_a_step_does_not_look_at_is_neither_drawn_nor_asked(
    losses: tuple[ForgetLoss, RetainLoss], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = Images.draw
    monkeypatch.setattr(Images, "draw", lambda self, *given: (drawn.append(given[2]), draw(self, *given))[1])
    task = make_task(losses)
    objectives = task.objectives(0, WHOLE)
    assert drawn == []
    for name, objective in zip(("retain", "forget"), objectives, strict=True):
        loss(objective), loss(objective)
        assert drawn == [name]
        drawn.clear()


def test_steps_that_only_retain_ask_for_no_weights_of_the_forget_batch() -> None:
    """12 steps, of which two forget: a look each, and for each of these two a look that gives the samples' weights."""
    task = make_task((AdaptiveAscent(), CrossEntropy()), total_steps=12)
    train(task, AlternatingSteps(retain_steps=5), 12)
    assert task.evaluations == 4 * (12 + 2)


def test_a_target_of_the_network_s_own_answers_is_taken_where_a_look_ahead_began() -> None:
    """Chained LUR looks at the forget batch at shifted weights; the samples' weights are those of the step's start."""
    task, fixed = moved((AdaptiveAscent(), CrossEntropy())), moved((AdaptiveAscent(), CrossEntropy()))
    retain, forget = task.objectives(0, WHOLE)
    batch = fixed.splits.forget.draw(4, 0, "forget", 0, fixed.splits.normalise)
    losses = cross_entropy(fixed.model.eval()(batch.images), batch.labels, reduction="none").detach()
    expected = losses.pow(-0.5) / losses.pow(-0.5).mean()
    loss(retain)
    with torch.no_grad():
        for one in (task, fixed):
            for p in one.trainable.values():
                p.add_(0.3)
    shifted = [p.detach().clone() for p in task.trainable.values()]
    there = cross_entropy(fixed.model.eval()(batch.images), batch.labels, reduction="none").detach()
    assert loss(forget) == pytest.approx(-(expected * there).mean().item(), rel=1e-5)
    assert_same_bits(task.trainable.values(), shifted)


def test_the_original_is_copied_only_if_a_loss_asks_for_it_and_stays_what_it_was() -> None:
    assert make_task()._original is None
    assert make_task((BadTeacher(), CrossEntropy()))._original is None
    task = make_task((TeacherDivergence(), Distillation()), start=Scratch())
    assert task._original is not None
    train(task, WeightedSum(), 2)
    with task._original() as original:
        assert (weights(original) == weights(linear())).all()
        assert not any(p.requires_grad for p in original.parameters())


def test_teachers_use_their_running_statistics_in_either_mode() -> None:
    for mode in ("frozen", "batch"):
        task = moved((BadTeacher(), Distillation()), batch_norm=mode)
        train(task, WeightedSum(), 1)
        for teacher in (task._original, task._random):
            assert teacher is not None
            with teacher() as network:
                assert network.get_buffer("norm.num_batches_tracked") == 0


@pytest.mark.parametrize("mode", ["frozen", "batch"])
def test_a_run_that_goes_on_from_its_parameters_and_buffers_is_the_same_run(mode: str) -> None:
    def task() -> UnlearningTask:
        return moved((AdaptiveAscent(), L1Sparse()), mask=Saliency(share=0.7), batch_norm=mode)

    rule = LUR(mode="alternating", alpha=AbsoluteAlpha(value=0.1))
    whole, first, second = train(task(), rule, 4), train(task(), rule, 2), task()
    with torch.no_grad():
        for there, here in ((first.trainable, second.trainable), (first.buffers, second.buffers)):
            for name, tensor in here.items():
                tensor.copy_(there[name])
    train(second, rule, 2, first=2)
    assert_same_bits(second.model.state_dict().values(), whole.model.state_dict().values())


# Parts of the network


def test_blocks_are_the_network_s_top_level_modules() -> None:
    assert make_task(model=two_layers()).blocks == ["conv", "conv", "norm", "norm", "fc", "fc"]
    wrapped = nn.Sequential()
    wrapped.add_module("network", two_layers())
    assert make_task(model=wrapped).blocks == ["conv", "conv", "norm", "norm", "fc", "fc"]


def test_buffers_are_the_running_statistics_where_they_move() -> None:
    assert make_task(model=two_layers()).buffers == {}
    task = make_task(model=two_layers(), batch_norm="batch")
    assert list(task.buffers) == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    train(task, WeightedSum(), 1)
    assert task.buffers["norm.num_batches_tracked"] == 1


def test_a_grown_head_keeps_the_old_rows_and_the_seed_draws_the_new_one() -> None:
    def rows(seed: int) -> torch.Tensor:
        return make_task((BoundaryExpand(), CrossEntropy()), seed=seed).model.get_parameter("fc.weight").detach()

    one, again, other = rows(0), rows(0), rows(1)
    assert_same_bits([one], [again])
    assert_same_bits([one[:3], other[:3]], [linear().get_parameter("fc.weight")] * 2)
    assert not torch.equal(one[3], other[3])
    assert one[3].abs().max() <= 0.5  # 1 / root of 4 inputs


def test_a_grown_head_trains_and_is_dropped_at_the_end() -> None:
    task = make_task((BoundaryExpand(), CrossEntropy()), two_layers())
    assert dict(task.trainable)["fc.bias"].shape == (4,)
    assert all(p is q for p, q in zip(task.trainable.values(), task.model.parameters(), strict=True))
    train(task, AlternatingSteps(), 4)
    finished = task.finished()
    assert finished.get_parameter("fc.bias").shape == (3,)
    assert task.model.get_parameter("fc.bias").shape == (4,)
    images = task.splits.normalise(task.splits.retain.pixels)
    torch.testing.assert_close(finished.eval()(images), task.model.eval()(images)[:, :3])


def test_without_a_class_more_the_finished_network_is_the_trained_one() -> None:
    task = make_task()
    assert task.finished() is task.model


# Refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parameters": LoRA()}, "parameters.name: lora"),
        ({"losses": (BoundaryExpand(), Distillation())}, "retain_loss.name: distillation needs the original's answers"),
        ({"losses": (BoundaryExpand(), CrossEntropy()), "mask": Saliency()}, "mask.name: saliency"),
        ({"model": linear(5)}, "model: the network tells 5 classes apart, the data has 3"),
        ({"parameters": CrossAttention()}, "parameters.name: cross_attention matches none"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task(**given)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UserError) as caught:
        make_task((BoundaryExpand(), Distillation()), linear(5), mask=Saliency())
    assert len(caught.value.problems) == 3


def test_without_settings_nothing_is_drawn_or_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="drawn anew"):
        make_task(start=Scratch(), fresh=None)
    with pytest.raises(ValueError, match="saved with its ModelSettings"):
        make_task().save(tmp_path)


# A network of the settings


SETTINGS = ModelSettings(architecture="resnet18")


def resnet(**given: Any) -> UnlearningTask:
    torch.manual_seed(0)
    losses = given.pop("losses", (GradientAscent(), CrossEntropy()))
    options: dict[str, Any] = {"describe": SETTINGS, "total_steps": 1} | given
    return UnlearningTask(make_model(SETTINGS, 3, 1), Full(), losses, tiny_splits(), **options)


def test_a_saved_classifier_loads_and_answers_as_the_trained_one(tmp_path: Path) -> None:
    task = train(resnet(batch_norm="batch", mask=Saliency()), WeightedSum(), 1)
    task.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"classifier.json", "model.safetensors", FILE}
    loaded, description = load_classifier(tmp_path)
    assert_same_bits(loaded.state_dict().values(), task.model.state_dict().values())
    assert description.extra == {"splits": tiny_splits().hashes()}
    assert set(load_file(tmp_path / FILE)) == set(task.trainable)
    again = replace(SETTINGS, checkpoint=tmp_path)
    make_model(again, 3, 1)


def test_a_grown_head_is_saved_without_its_last_row(tmp_path: Path) -> None:
    task = resnet(losses=(BoundaryExpand(), CrossEntropy()))
    task.save(tmp_path)
    assert_same_bits(
        [load_classifier(tmp_path)[0].get_parameter("fc.weight")], [task.model.get_parameter("fc.weight")[:3]]
    )


def test_scratch_draws_by_the_settings_without_their_checkpoint() -> None:
    settings = replace(SETTINGS, checkpoint=Path("nowhere.safetensors"))
    one, other = (resnet(start=Scratch(), describe=settings, seed=seed).model for seed in (0, 1))
    again = resnet(start=Scratch(), seed=0).model
    assert_same_bits(one.state_dict().values(), again.state_dict().values())
    assert not torch.equal(one.get_parameter("conv1.weight"), other.get_parameter("conv1.weight"))
    assert resnet().blocks[0] == "conv1"
