"""Forget losses, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from erase.classification.images import Batch
from erase.classification.losses import (
    FORGET_LOSSES,
    AdaptiveAscent,
    BadTeacher,
    BoundaryExpand,
    BoundaryShrink,
    GradientAscent,
    RandomLabel,
    TeacherDivergence,
    Uniform,
)
from erase.classification.losses.base import Loss, Network

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
LOGITS = torch.tensor([[LN2, 0.0, 0.0], [0.0, LN3, 0.0]])
"""Probabilities (2, 1, 1) / 4 and (1, 3, 1) / 5."""


def batch(labels: list[int], seed: int = 0, progress: float = 0.0, target: Tensor | None = None) -> Batch:
    count = len(labels)
    images = torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.tensor(labels), tuple(map(str, range(count))), seed, progress, target)


def says(logits: Tensor) -> Network:
    """A network that answers the same to whatever it is shown."""

    def network(images: Tensor) -> Tensor:
        return logits

    return network


def assert_values(loss: Loss, given: Batch, expected: list[float], logits: Tensor = LOGITS) -> None:
    torch.testing.assert_close(loss(logits, given), torch.tensor(expected))


def test_gradient_ascent_is_negated_cross_entropy() -> None:
    assert_values(GradientAscent(), batch([0, 2]), [math.log(2 / 4), math.log(1 / 5)])


def test_uniform_is_the_divergence_from_the_uniform_distribution() -> None:
    # -(ln 1/2 + 2 ln 1/4) / 3 - ln 3, -(2 ln 1/5 + ln 3/5) / 3 - ln 3
    expected = [5 / 3 * LN2 - LN3, math.log(5) - LN3 / 3 - LN3]
    assert_values(Uniform(), batch([0, 2]), expected)
    assert_values(Uniform(), batch([0, 2]), [0.0, 0.0], torch.full((2, 3), 7.0))


def test_uniform_agrees_with_torch() -> None:
    logits = torch.randn(6, 5)
    judged = nn.functional.kl_div(logits.log_softmax(1), torch.full((6, 5), 0.2), reduction="none").sum(1)
    torch.testing.assert_close(Uniform()(logits, batch([0] * 6)), judged)


def test_adaptive_ascent_weighs_by_the_root_of_1_over_the_loss() -> None:
    # CE = ln 2 and ln 5: weights proportional to (ln 2)^-1/2 and (ln 5)^-1/2, of mean 1
    first, second = math.log(2), math.log(5)
    raw = [first**-0.5, second**-0.5]
    given = batch([0, 2])
    target = AdaptiveAscent().target(None, says(LOGITS), given)
    weights = [2 * w / sum(raw) for w in raw]
    torch.testing.assert_close(target, torch.tensor(weights))
    assert_values(AdaptiveAscent(), replace(given, target=target), [-weights[0] * first, -weights[1] * second])


def test_adaptive_ascent_fades_by_half_a_cosine_or_not_at_all() -> None:
    ones = torch.ones(2)
    for progress, strength in ((0.0, 1.0), (0.5, 0.5), (0.75, (1 - 0.5**0.5) / 2)):
        given = batch([0, 2], progress=progress, target=ones)
        assert_values(AdaptiveAscent(), given, [strength * math.log(1 / 2), strength * math.log(1 / 5)])
        assert_values(AdaptiveAscent(decay="none"), given, [math.log(1 / 2), math.log(1 / 5)])


def test_adaptive_ascent_survives_a_sample_known_by_heart() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, LN3, 0.0]])
    target = AdaptiveAscent().target(None, says(logits), batch([0, 2]))
    assert torch.isfinite(target).all()
    assert target.mean().item() == pytest.approx(1)


def test_adaptive_ascent_of_power_0_is_plain_ascent() -> None:
    given = batch([0, 2])
    target = AdaptiveAscent(power=0).target(None, says(LOGITS), given)
    assert_values(AdaptiveAscent(power=0), replace(given, target=target), [math.log(1 / 2), math.log(1 / 5)])


def random_labels(loss: RandomLabel, count: int = 3000, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    given = batch([i % classes for i in range(count)], seed)
    target = loss.target(None, says(LOGITS), given)
    return given.labels, loss.labels(replace(given, target=target), classes)


def test_random_labels_are_uniform_among_the_other_classes() -> None:
    true, drawn = random_labels(RandomLabel())
    assert not (true == drawn).any()
    shifts = torch.bincount((drawn - true) % 4, minlength=4)
    assert shifts[0] == 0
    assert (shifts[1:] - 1000).abs().max() < 5 * (3000 * 2 / 9) ** 0.5  # five standard deviations


def test_random_labels_may_be_the_true_one_if_it_is_not_excluded() -> None:
    _, drawn = random_labels(RandomLabel(excluding=False))
    assert (torch.bincount(drawn) - 750).abs().max() < 5 * (3000 * 3 / 16) ** 0.5


def test_random_labels_follow_from_the_batch_s_seed() -> None:
    one, again, other = (random_labels(RandomLabel(), 50, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_largest_draw_is_the_last_class() -> None:
    last = torch.tensor([1 - 2**-24])
    for classes in range(2, 2000):
        given = batch([0], target=last)
        assert RandomLabel(excluding=False).labels(given, classes).item() == classes - 1
        assert RandomLabel().labels(given, classes).item() == classes - 1


def test_random_label_is_the_cross_entropy_of_what_was_drawn() -> None:
    # of three classes, 0.6 stands for the second of the two others: 2 for label 0, 1 for label 2
    given = batch([0, 2], target=torch.tensor([0.6, 0.6]))
    assert_values(RandomLabel(), given, [LN4, math.log(5 / 3)])


def test_boundary_shrink_moves_along_the_sign_and_takes_the_next_class() -> None:
    # logits = 5 (x0, x1, x0 + x1 - 0.4) at x = (1, 0.9): up the loss of label 0 is x0 down, x1 up
    weight = torch.tensor([[5.0, 0, 0, 0], [0, 5.0, 0, 0], [5.0, 5.0, 0, 0]])

    def original(images: Tensor) -> Tensor:
        return images.flatten(1) @ weight.T - torch.tensor([0, 0, 4.0])

    given = replace(batch([0]), images=torch.tensor([[[[1.0, 0.3], [0.0, 0.0]]]]))
    near, far = (BoundaryShrink(bound=bound).target(original, original, given) for bound in (0.01, 0.9))
    assert near.tolist() == [2]  # at (0.99, 0.31): 4.95, 1.55, 2.5: the true class is first, and is not taken
    assert far.tolist() == [1]  # at (0.1, 1.2): 0.5, 6, 2.5
    assert_values(BoundaryShrink(), replace(batch([0, 2]), target=torch.tensor([1, 1])), [LN4, math.log(5 / 3)])


def test_boundary_expand_is_the_cross_entropy_of_the_last_class() -> None:
    assert_values(BoundaryExpand(), batch([0, 1]), [LN4, math.log(5)])


@pytest.mark.parametrize(("loss", "sign"), [(BadTeacher, 1), (TeacherDivergence, -1)])
def test_divergence_from_a_teacher(loss: type[BadTeacher] | type[TeacherDivergence], sign: int) -> None:
    given = batch([0, 1])
    teacher = torch.tensor([[0.0, 0.0, LN2], [0.0, LN3, 0.0]])
    target = loss().target(says(teacher), says(LOGITS), given)
    # (1, 1, 2) / 4 against (2, 1, 1) / 4: 1/4 ln 1/2 + 1/2 ln 2; the second are the same
    assert_values(loss(temperature=1), replace(given, target=target), [sign * LN2 / 4, 0.0])
    # at T = 2 the probabilities go as the roots: (1, 1, r) against (r, 1, 1), each over 2 + r, r = root of 2; times 4
    r = 2**0.5
    soft = 4 * (-LN2 / 2 + r * LN2 / 2) / (2 + r)
    assert_values(loss(temperature=2), replace(given, target=target), [sign * soft, 0.0])


@pytest.mark.parametrize("loss", [AdaptiveAscent(), RandomLabel(), BoundaryShrink(), BadTeacher(), TeacherDivergence()])
def test_a_loss_without_its_target_says_so(loss: Loss) -> None:
    with pytest.raises(ValueError, match="no target"):
        loss(LOGITS, batch([0, 2]))


@pytest.mark.parametrize("loss", [BoundaryShrink(), BadTeacher(), TeacherDivergence()])
def test_a_loss_without_its_teacher_says_so(loss: Loss) -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        loss.target(None, says(LOGITS), batch([0, 2]))


def test_the_table_finds_each_loss_under_its_own_name() -> None:
    assert {name: kind().name for name, kind in FORGET_LOSSES.items()} == {name: name for name in FORGET_LOSSES}


def test_what_each_loss_asks_for() -> None:
    asked = {name: (k.needs_original, k.needs_random, k.extra_class) for name, k in FORGET_LOSSES.items()}
    assert {name for name, (original, _, _) in asked.items() if original} == {"boundary_shrink", "teacher_divergence"}
    assert {name for name, (_, random, _) in asked.items() if random} == {"bad_teacher"}
    assert {name for name, (_, _, extra) in asked.items() if extra} == {"boundary_expand"}


@pytest.mark.parametrize("kind", FORGET_LOSSES.values(), ids=list(FORGET_LOSSES))
def test_one_number_for_each_example_and_none_looks_at_another(kind: type[Loss]) -> None:
    """Given its target, each example's loss is its own; and no loss adds a penalty."""
    given = batch([0, 1, 2, 0])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    loss = kind()
    target = loss.target(lambda images: images.flatten(1)[:, :3], says(logits), given)
    given = replace(given, target=target)
    whole = loss(logits, given)
    assert whole.shape == (4,)
    torch.testing.assert_close(torch.cat([loss(logits[i : i + 1], given.part(i, i + 1)) for i in range(4)]), whole)
    assert loss.penalty([logits], given) is None
