"""Selective dampening and influence unlearning, which need no loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from erase.classification.material import Material, largest
from erase.classification.starts import InfluenceUnlearning, SelectiveDampening
from erase.errors import UserError
from tests.properties import assert_same_bits
from tests.unit.classification.unlearnings import linear, make_task, samples, tiny_splits, two_layers, weights


def material(seed: int = 0) -> tuple[Material, torch.nn.Module]:
    task = make_task(seed=seed)
    found = Material(task.splits, task.trainable, task._logits, task._fresh, task.device, seed)
    return found, task.model


def test_the_sum_of_gradients_does_not_depend_on_how_many_are_taken_at_once() -> None:
    given, model = material()
    everything = samples(tiny_splits().train)
    for size in (1, 3, 8, 100):
        found = given.gradient_sum(model, given.splits.train, size)["fc.weight"]
        assert_allclose(found.double().numpy(), everything.slopes(weights(model)).sum(0), rtol=0, atol=2e-6)


def test_fisher_is_the_mean_over_batches_of_the_squared_mean_gradient() -> None:
    given, model = material()
    slopes = samples(tiny_splits().forget).slopes(weights(model))
    single = given.fisher(model, given.splits.forget, 1)["fc.weight"]
    assert_allclose(single.numpy(), np.square(slopes).mean(0), rtol=0, atol=1e-6)
    whole = given.fisher(model, given.splits.forget, 4)["fc.weight"]
    assert_allclose(whole.numpy(), np.square(slopes.mean(0)), rtol=0, atol=1e-6)
    pairs = given.fisher(model, given.splits.forget, 2)["fc.weight"].numpy()
    ways = [[(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0, 3), (1, 2)]]
    possible = [np.mean([np.square(slopes[list(pair)].mean(0)) for pair in way], 0) for way in ways]
    assert sum(np.allclose(pairs, way, rtol=0, atol=1e-6) for way in possible) == 1


def test_a_last_batch_is_filled_up_so_that_no_small_one_weighs_more() -> None:
    given, model = material()
    slopes = samples(tiny_splits().forget).slopes(weights(model))
    found = given.fisher(model, given.splits.forget, 3)["fc.weight"].numpy()
    triples = [np.square(slopes[[i, j, k]].mean(0)) for i in range(4) for j in range(i) for k in range(j)]
    possible = [(one + other) / 2 for one in triples for other in triples]
    assert any(np.allclose(found, way, rtol=0, atol=1e-6) for way in possible)
    with pytest.raises(ValueError, match="a batch of 5 of 4 samples"):
        given.fisher(model, given.splits.forget, 5)


def test_sets_that_are_compared_have_batches_of_one_size() -> None:
    given, _ = material()
    assert [given.common_size(size) for size in (1, 3, 4, 64)] == [1, 3, 4, 4]


def test_batches_of_the_fisher_information_follow_from_the_seed() -> None:
    found = [material(seed) for seed in range(8)]
    values = [given.fisher(model, given.splits.train, 3)["fc.weight"] for given, model in found]
    again, model = material(0)
    assert torch.equal(again.fisher(model, again.splits.train, 3)["fc.weight"], values[0])
    assert any(not torch.equal(values[0], other) for other in values[1:])


def test_the_largest_entries_of_all_tensors_together() -> None:
    scores = {"a": torch.tensor([[1.0, 5.0], [2.0, 2.0]]), "b": torch.tensor([4.0])}
    assert {k: v.tolist() for k, v in largest(scores, 0.4).items()} == {
        "a": [[False, True], [False, False]],
        "b": [True],
    }
    assert largest(scores, 0.6)["a"].tolist() == [[False, True], [True, False]]  # of two equal ones the first
    assert all(v.all() for v in largest(scores, 1.0).values())


def test_dampening_never_makes_a_weight_larger_and_leaves_what_all_data_need() -> None:
    start = weights(linear())
    for lam in (0.1, 1.0, 1000.0):
        found = weights(make_task(start=SelectiveDampening(alpha=1.2, lam=lam, batch_size=1)).model)
        assert (np.abs(found) <= np.abs(start)).all()
    assert (found == start).all(), "with so large a factor nothing is dampened"
    strict = make_task(start=SelectiveDampening(alpha=1e6, batch_size=1))
    assert (weights(strict.model) == start).all()


def test_dampening_survives_weights_that_nothing_depends_on() -> None:
    model = two_layers()
    with torch.no_grad():
        model.get_parameter("norm.weight").zero_()
        model.get_parameter("norm.bias").fill_(-1)  # the ReLU is shut: no gradient reaches the convolution
    task = make_task(model=model, start=SelectiveDampening(alpha=1, batch_size=2), fresh=two_layers)
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    assert_same_bits([task.model.get_parameter("conv.weight")], [two_layers().get_parameter("conv.weight")])


def test_one_shot_starts_count_their_gradients() -> None:
    # D and f once each: 8 + 4
    assert make_task(start=SelectiveDampening()).evaluations == 12
    # f and r once each: 4 + 4; then so many products of 3 samples
    products, left = divmod(make_task(start=InfluenceUnlearning(samples=3)).evaluations - 8, 3)
    assert left == 0
    assert 1 <= products <= 12


def test_influence_goes_up_the_forget_loss_and_down_the_retain_loss() -> None:
    start, splits = weights(linear()), tiny_splits()
    found = weights(make_task(start=InfluenceUnlearning(scale=1.0)).model)
    assert samples(splits.forget).losses(found).mean() > samples(splits.forget).losses(start).mean()
    assert samples(splits.retain).losses(found).mean() < samples(splits.retain).losses(start).mean()


def test_influence_without_curvature_is_a_gradient_step() -> None:
    """With much damping F^-1 is 1 / damping."""
    start, splits = weights(linear()), tiny_splits()
    forget, retain = (samples(part).slopes(start).sum(0) for part in (splits.forget, splits.retain))
    found = weights(make_task(start=InfluenceUnlearning(scale=1e6, damping=1e6, tolerance=1e-6)).model)
    assert_allclose(found - start, (forget - retain) / 8, rtol=0, atol=1e-5)


def test_curvature_that_cannot_be_inverted_is_refused() -> None:
    with pytest.raises(UserError, match=r"start.damping: with 1e-09 the curvature is not inverted after 1 products"):
        make_task(start=InfluenceUnlearning(damping=1e-9, iterations=1, tolerance=1e-6))


def test_the_curvature_is_sampled_from_what_is_kept_by_the_seed() -> None:
    def after(seed: int) -> list[float]:
        start = InfluenceUnlearning(samples=1, damping=0.01, scale=1)
        return weights(make_task(start=start, seed=seed).model).ravel().tolist()

    assert after(0) == after(0)
    assert len({tuple(after(seed)) for seed in range(6)}) > 1
