"""Each published method as start x losses x rule x mask, against its steps worked out in plain numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from erase.classification.losses import (
    AdaptiveAscent,
    BadTeacher,
    BoundaryExpand,
    BoundaryShrink,
    CrossEntropy,
    Distillation,
    GradientAscent,
    L1Sparse,
    RandomLabel,
    TeacherDivergence,
)
from erase.classification.masks import FisherRatio, Saliency
from erase.classification.starts import (
    InfluenceUnlearning,
    Scratch,
    SelectiveDampening,
    Trained,
    Trim,
    influence_unlearning,
)
from erase.classification.task import UnlearningTask
from erase.parameters import Full
from erase.protocols import Shard, UpdateState
from erase.updates import (
    LUR,
    AlternatingSteps,
    ForgetOnly,
    GradientProjection,
    Nash,
    RetainOnly,
    WeightedSum,
)
from erase.updates.alpha import AbsoluteAlpha
from erase.updates.lur import coin
from tests.properties import assert_same_bits
from tests.unit.classification.softmax_regression import Array, Samples
from tests.unit.classification.unlearnings import linear, make_task, samples, tiny_splits, train, weights

RATE = 0.5
ROUNDING: dict[str, Any] = {"rtol": 0, "atol": 2e-6}
"""Weights are below 2; float32 rounds each of a few dozen operations by 6e-8 of that."""
Slope = Callable[[Array], Array]


def parts(classes: int = 3) -> tuple[Samples, Samples]:
    """To forget, and to keep."""
    splits = tiny_splits(classes)
    return samples(splits.forget), samples(splits.retain)


def descend(start: Array, *slopes: Slope) -> Array:
    """A step of descent along each."""
    now = start.copy()
    for slope in slopes:
        now = now - RATE * slope(now)
    return now


def test_retraining_is_descent_on_what_is_kept_from_weights_drawn_anew() -> None:
    _, keep = parts()
    task = train(make_task(start=Scratch()), RetainOnly(), 2)
    assert_allclose(weights(task.model), descend(weights(linear(seed=9)), keep.gradient, keep.gradient), **ROUNDING)


def test_the_original_is_descent_on_all_samples() -> None:
    everything = samples(tiny_splits().train)
    task = make_task(learn_from="all")
    optimizer = torch.optim.SGD(task.trainable.values(), lr=RATE)
    train(task, RetainOnly(), 2, optimizer, Shard(batch_size=8))
    assert_allclose(weights(task.model), descend(weights(linear()), *[everything.gradient] * 2), **ROUNDING)


def test_finetuning() -> None:
    _, keep = parts()
    task = train(make_task(), RetainOnly(), 2)
    assert_allclose(weights(task.model), descend(weights(linear()), keep.gradient, keep.gradient), **ROUNDING)


def test_gradient_ascent() -> None:
    forget, _ = parts()
    task = train(make_task(), ForgetOnly(), 2)
    assert_allclose(weights(task.model), descend(weights(linear()), *[lambda w: -forget.gradient(w)] * 2), **ROUNDING)


def test_neggrad_plus_weighs_the_two() -> None:
    forget, keep = parts()
    task = train(make_task(forget_weight=0.3), WeightedSum(), 2)
    expected = descend(weights(linear()), *[lambda w: keep.gradient(w) - 0.3 * forget.gradient(w)] * 2)
    assert_allclose(weights(task.model), expected, **ROUNDING)


def test_random_label_learns_the_wrong_label_and_then_what_is_kept() -> None:
    """Of two classes there is one wrong label."""
    forget, keep = parts(2)
    task = train(make_task((RandomLabel(), CrossEntropy()), classes=2), AlternatingSteps(), 4)
    wrong = forget.labelled(1 - forget.labels)
    expected = descend(weights(linear(2)), *[wrong.gradient, keep.gradient] * 2)
    assert_allclose(weights(task.model), expected, **ROUNDING)


def test_l1_sparse_pulls_less_and_less() -> None:
    _, keep = parts()
    task = train(make_task((GradientAscent(), L1Sparse(gamma=0.2))), RetainOnly(), 2)
    pulls = [lambda w, t=t: keep.gradient(w) + 0.2 * (1 - t) * np.sign(w) for t in (0.0, 0.25)]
    assert_allclose(weights(task.model), descend(weights(linear()), *pulls), **ROUNDING)


def test_boundary_shrinking_goes_to_the_nearest_wrong_class_of_the_original() -> None:
    forget, _ = parts()
    start = weights(linear())
    error = forget.probabilities(start) - np.eye(3)[forget.labels]
    moved = (forget.inputs + 0.4 * np.sign(error @ start)) @ start.T
    moved[np.arange(4), forget.labels] = -np.inf
    nearest = forget.labelled(moved.argmax(1))
    task = train(make_task((BoundaryShrink(bound=0.4), CrossEntropy())), ForgetOnly(), 2)
    assert_allclose(weights(task.model), descend(start, nearest.gradient, nearest.gradient), **ROUNDING)


def test_boundary_expanding_learns_a_class_of_its_own_which_is_then_dropped() -> None:
    forget, _ = parts()
    task = make_task((BoundaryExpand(), CrossEntropy()))
    grown = weights(task.model)
    assert grown.shape == (4, 4)
    assert_allclose(grown[:3], weights(linear()), rtol=0, atol=0)
    own = forget.labelled(np.full(4, 3))
    expected = descend(grown, own.gradient, own.gradient)
    train(task, ForgetOnly(), 2)
    assert_allclose(weights(task.model), expected, **ROUNDING)
    assert_allclose(weights(task.finished()), expected[:3], **ROUNDING)


def test_bad_teacher_is_taught_by_a_random_network_and_by_the_original() -> None:
    forget, keep = parts()
    task = train(make_task((BadTeacher(), Distillation(gamma=0, alpha=1, temperature=1))), WeightedSum(), 2)
    original, random = weights(linear()), weights(linear(seed=9))
    both = [lambda w: forget.towards(w, random, 1) + keep.towards(w, original, 1)] * 2
    assert_allclose(weights(task.model), descend(original, *both), **ROUNDING)


def test_scrub_leaves_the_original_and_returns_then_only_returns() -> None:
    forget, keep = parts()
    losses = (TeacherDivergence(temperature=4), Distillation(gamma=0.9, alpha=0.5, temperature=4))
    task = train(make_task(losses, total_steps=5), AlternatingSteps(forget_until=3), 5)
    start = weights(linear())

    def away(w: Array) -> Array:
        return -forget.towards(w, start, 4)

    def back(w: Array) -> Array:
        return 0.9 * keep.gradient(w) + 0.5 * keep.towards(w, start, 4)

    assert not away(start).any(), "at the original there is nowhere to go"
    assert_allclose(weights(task.model), descend(start, away, back, away, back, back), **ROUNDING)


def test_influence_unlearning_is_woodfishers_rank_one_updates() -> None:
    """F_0^-1 = I / damping; F_i^-1 = F_(i-1)^-1 - (F_(i-1)^-1 g)(F_(i-1)^-1 g)^T / (m + g^T F_(i-1)^-1 g)."""
    forget, keep = parts()
    start = weights(linear())
    inverse = np.eye(12) / 0.2
    for slope in keep.slopes(start).reshape(4, 12):
        along = inverse @ slope
        inverse = inverse - np.outer(along, along) / (4 + slope @ along)
    summed = [part.slopes(start).sum(0).reshape(12) for part in (forget, keep)]
    step = inverse @ (summed[0] / 8 - 4 / (8 * 4) * summed[1])
    task = make_task(start=InfluenceUnlearning(scale=3.0, samples=4, damping=0.2, tolerance=1e-6))
    assert_allclose(weights(task.model), start + 3 * step.reshape(3, 4), rtol=0, atol=1e-5)


def test_influence_unlearning_of_two_samples_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """By w = 1/n - n_f / (n n_r), not equal parts; the curvature's samples are more than fit in a chunk."""
    monkeypatch.setattr(influence_unlearning, "CHUNK", 4)
    whole, model = tiny_splits(), linear()
    splits = replace(whole, forget=whole.train.take(range(2)), retain=whole.train.take(range(2, 8)))
    start, forget, keep = weights(model), samples(splits.forget), samples(splits.retain)
    slopes = keep.slopes(start).reshape(6, 12)
    right = forget.slopes(start).sum(0).ravel() / 8 - 2 / (8 * 6) * slopes.sum(0)
    step = np.linalg.solve(0.2 * np.eye(12) + slopes.T @ slopes / 6, right)
    losses = (GradientAscent(), CrossEntropy())
    begin = InfluenceUnlearning(scale=3.0, samples=6, damping=0.2, tolerance=1e-6)
    UnlearningTask(model, Full(), losses, splits, total_steps=1, start=begin)
    assert_allclose(weights(model), start + 3 * step.reshape(3, 4), rtol=0, atol=1e-5)


def test_selective_dampening() -> None:
    forget, _ = parts()
    everything = samples(tiny_splits().train)
    start = weights(linear())
    specific, general = forget.squared_slopes(start), everything.squared_slopes(start)
    factor = np.minimum(1, 0.7 * general / specific)
    expected = np.where(specific > 1.2 * general, factor * start, start)
    assert 0 < (expected != start).sum() < 12
    task = make_task(start=SelectiveDampening(alpha=1.2, lam=0.7, batch_size=1))
    assert_allclose(weights(task.model), expected, **ROUNDING)


def top(scores: Array, count: int) -> Array:
    """Where the largest are."""
    found = np.zeros(scores.size, dtype=bool)
    found[np.argsort(-scores.ravel())[:count]] = True
    return found.reshape(scores.shape)


def test_salun_moves_the_salient_half_under_momentum_and_weight_decay() -> None:
    forget, keep = parts(2)
    start = weights(linear(2))
    moves = top(np.abs(forget.gradient(start)), 4)
    wrong = forget.labelled(1 - forget.labels)
    now, speed = start.copy(), np.zeros_like(start)
    for slope in [wrong.gradient, keep.gradient] * 2:
        speed = 0.9 * speed + moves * (slope(now) + 0.1 * now)
        now = now - RATE * speed
    task = make_task((RandomLabel(), CrossEntropy()), classes=2, mask=Saliency(share=0.5))
    optimizer = torch.optim.SGD(task.trainable.values(), lr=RATE, momentum=0.9, weight_decay=0.1)
    train(task, AlternatingSteps(), 4, optimizer)
    assert_allclose(weights(task.model), now, rtol=0, atol=1e-5)
    held = torch.from_numpy(~moves)
    assert_same_bits([task.model.get_parameter("fc.weight")[held]], [linear(2).get_parameter("fc.weight")[held]])


def test_scissorhands_trims_and_then_forgets_without_opposing_what_is_kept() -> None:
    forget, keep = parts()
    start, fresh = weights(linear()), weights(linear(seed=9))
    trimmed = np.where(top(np.abs(forget.gradient(start) * start), 3), fresh, start)

    def projected(w: Array) -> Array:
        retain, ascent = keep.gradient(w), -0.8 * forget.gradient(w)
        against = min(0.0, (retain * ascent).sum())
        return retain + ascent - against / (retain**2).sum() * retain

    task = make_task(start=Trim(share=0.25), forget_weight=0.8)
    assert_allclose(weights(task.model), trimmed, **ROUNDING)
    train(task, GradientProjection(), 2)
    assert_allclose(weights(task.model), descend(trimmed, projected, projected), **ROUNDING)


def test_sfron_climbs_where_fisher_says_then_retains_five_times() -> None:
    forget, keep = parts()
    start = weights(linear())
    moves = forget.squared_slopes(start) >= 0.8 * keep.squared_slopes(start)
    assert 0 < moves.sum() < 12

    def climb(w: Array, progress: float) -> Array:
        weight = forget.losses(w) ** -0.5
        weight = weight / weight.mean()
        strength = 2.5 * (1 + math.cos(math.pi * progress)) / 2
        found: Array = -strength * moves * (weight[:, None, None] * forget.slopes(w)).mean(0)
        return found

    losses = (AdaptiveAscent(), CrossEntropy())
    mask = FisherRatio(threshold=0.8, batch_size=1)
    task = make_task(losses, total_steps=8, mask=mask, forget_weight=2.5)
    train(task, AlternatingSteps(retain_steps=5), 8)
    steps = [lambda w: climb(w, 0), *[keep.gradient] * 5, lambda w: climb(w, 6 / 8), keep.gradient]
    assert_allclose(weights(task.model), descend(start, *steps), **ROUNDING)


def test_munba_bargains() -> None:
    forget, keep = parts(2)
    wrong = forget.labelled(1 - forget.labels)

    def bargain(w: Array) -> Array:
        """The weights solve G w = 1 / w: found here by Newton's method, not by the closed form."""
        g = np.stack([keep.gradient(w).ravel(), wrong.gradient(w).ravel()])
        gram, found = g @ g.T, 1 / np.linalg.norm(g, axis=1)
        for _ in range(50):
            found = found - np.linalg.solve(gram + np.diag(found**-2), gram @ found - 1 / found)
        return (found @ g).reshape(w.shape)

    task = train(make_task((RandomLabel(), CrossEntropy()), classes=2), Nash(), 2)
    assert_allclose(weights(task.model), descend(weights(linear(2)), bargain, bargain), rtol=0, atol=1e-5)


ALPHA, LAMBDA = 0.3, 0.6


def look_ahead(mode: str, forget: Samples, keep: Samples) -> Callable[[Array, int], Array]:
    """LUR's direction at a step, from its formula."""

    def ascent(w: Array) -> Array:
        return -LAMBDA * forget.gradient(w)

    def chained(w: Array, _: int) -> Array:
        ahead = ascent(w - ALPHA * keep.gradient(w))
        return ahead + keep.gradient(w - ALPHA * ahead)

    def exact(w: Array, _: int) -> Array:
        ahead = ascent(w - ALPHA * keep.gradient(w))
        return keep.gradient(w) + ahead - ALPHA * keep.hessian_times(w, ahead)

    def first_order(w: Array, _: int) -> Array:
        return keep.gradient(w) + ascent(w - ALPHA * keep.gradient(w))

    def alternating(w: Array, step: int) -> Array:
        if coin(UpdateState(step=step)):
            return keep.gradient(w) + ascent(w - 2 * ALPHA * keep.gradient(w))
        return ascent(w) + keep.gradient(w - 2 * ALPHA * ascent(w))

    return {"chained": chained, "exact": exact, "first_order": first_order, "alternating": alternating}[mode]


@pytest.mark.parametrize("trim", [False, True], ids=["as trained", "trimmed"])
@pytest.mark.parametrize("mode", ["chained", "exact", "first_order", "alternating"])
def test_lur(mode: str, trim: bool) -> None:
    forget, keep = parts()
    task = make_task(forget_weight=LAMBDA, start=Trim(share=0.25) if trim else Trained())
    now, direction = weights(task.model), look_ahead(mode, forget, keep)
    assert (now != weights(linear())).sum() == (3 if trim else 0)
    rule = LUR(mode=mode, alpha=AbsoluteAlpha(value=ALPHA), measure_every=0)  # type: ignore[arg-type]
    train(task, rule, 4)
    for step in range(4):
        now = now - RATE * direction(now, step)
    assert_allclose(weights(task.model), now, **ROUNDING)


def test_both_sides_of_lurs_coin_are_tossed_above() -> None:
    assert len({coin(UpdateState(step=step)) for step in range(4)}) == 2
