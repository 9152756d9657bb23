"""What a mask lets move, how it is held, and how it is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from erase.classification.images import Normalise
from erase.classification.losses import CrossEntropy, GradientAscent, L1Sparse, RandomLabel
from erase.classification.masks import FILE, MASKS, FisherRatio, Masked, NoMask, Saliency, check_mask, hash_weights
from erase.classification.splits import Splits
from erase.classification.starts import Trim
from erase.classification.task import UnlearningTask
from erase.errors import UserError
from erase.parameters import Full
from erase.protocols import Shard, UpdateRule
from erase.updates import LUR, AlternatingSteps, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from tests.properties import assert_same_bits
from tests.unit.classification.unlearnings import (
    gradient,
    linear,
    make_task,
    samples,
    tiny_splits,
    train,
    two_layers,
    weights,
)

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
ALPHA = AbsoluteAlpha(value=0.2)
RULES: dict[str, UpdateRule] = {
    "weighted_sum": WeightedSum(),
    "alternating_steps": AlternatingSteps(),
    **{mode: LUR(mode=mode, alpha=ALPHA) for mode in ("chained", "exact", "alternating")},
}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


def task_with(mask: Saliency | FisherRatio, **given: object) -> UnlearningTask:
    return make_task(model=two_layers(), mask=mask, fresh=two_layers, **given)  # type: ignore[arg-type]


def flat(task: UnlearningTask) -> tuple[Tensor, Tensor]:
    """All parameters, and where they may move."""
    entries = task.masked.entries
    return tuple(
        torch.cat([t.detach().flatten() for t in part]) for part in (task.trainable.values(), entries.values())
    )  # type: ignore[return-value]


def test_saliency_is_the_top_share_of_the_summed_gradient_over_all_tensors() -> None:
    model = two_layers()
    task = task_with(Saliency(share=0.25))
    loss = nn.functional.cross_entropy(model.eval()(images()), tiny_splits().forget.labels, reduction="sum")
    slopes = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).abs()
    moves = flat(task)[1]
    assert moves.sum() == round(0.25 * len(slopes))
    assert slopes[moves].min() >= slopes[~moves].max() - 1e-7


def images() -> Tensor:
    splits = tiny_splits()
    return splits.normalise(splits.forget.pixels)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_masked_out_stays_to_the_bit_and_the_rest_moves(rule: str, optimizer: str) -> None:
    task = task_with(Saliency(share=0.4))
    before, moves = flat(task)
    train(task, RULES[rule], 4, OPTIMIZERS[optimizer](list(task.trainable.values())))
    after, _ = flat(task)
    assert_same_bits([after[~moves]], [before[~moves]])
    assert (after[moves] != before[moves]).float().mean() > 0.8


def test_without_putting_back_weight_decay_would_move_it() -> None:
    """The negative control: a mask on the gradient alone is not held."""
    task = task_with(Saliency(share=0.4))
    before, moves = flat(task)
    task.after_step = lambda: None  # type: ignore[method-assign]
    train(task, WeightedSum(), 1, OPTIMIZERS["adamw"](list(task.trainable.values())))
    assert (flat(task)[0][~moves] != before[~moves]).any()


def test_what_a_start_did_to_held_entries_stays() -> None:
    task = make_task(start=Trim(share=1.0), mask=Saliency(share=0.5))
    train(task, WeightedSum(), 2, OPTIMIZERS["sgd"](list(task.trainable.values())))
    held = ~task.masked.entries["fc.weight"].numpy()
    np.testing.assert_array_equal(weights(task.model)[held], weights(linear(seed=9))[held])


@pytest.mark.parametrize("forgetting", [False, True])
def test_saliency_masks_both_gradients_and_their_penalties(forgetting: bool) -> None:
    losses = (RandomLabel(), L1Sparse(gamma=1.0))
    plain, masked = make_task(losses), make_task(losses, mask=Saliency(share=0.5))
    expected = gradient(plain, forgetting) * flat(masked)[1]
    torch.testing.assert_close(gradient(masked, forgetting), expected, rtol=0, atol=1e-7)


def test_fisher_ratio_masks_the_forget_gradient_only() -> None:
    plain, masked = make_task(), make_task(mask=FisherRatio(threshold=0.8, batch_size=1))
    moves = flat(masked)[1]
    assert 0 < moves.sum() < 12
    torch.testing.assert_close(gradient(masked, True), gradient(plain, True) * moves)
    torch.testing.assert_close(gradient(masked, False), gradient(plain, False))


def test_fisher_ratio_by_hand() -> None:
    start, splits = weights(linear()), tiny_splits()
    forget, keep = (samples(part).squared_slopes(start) for part in (splits.forget, splits.retain))
    for threshold in (0.5, 1.0, 2.0):
        found = make_task(mask=FisherRatio(threshold=threshold, batch_size=1)).masked.entries["fc.weight"]
        np.testing.assert_array_equal(found.numpy(), forget / keep >= threshold)


def test_a_mask_that_lets_nothing_move_is_refused() -> None:
    with pytest.raises(UserError, match=r'mask: found .*"share": 0.0001.*, which lets none of the entries move'):
        task_with(Saliency(share=1e-4))


def test_exact_lur_is_lur_of_the_entries_that_move() -> None:
    """The Hessian-vector product too is masked: with what is held as constants, it is the same step."""
    task = make_task(mask=Saliency(share=0.5))
    start, moves = weights(linear()), task.masked.entries["fc.weight"].numpy()
    forget, keep = (samples(part) for part in (task.splits.forget, task.splits.retain))
    train(task, LUR(mode="exact", alpha=ALPHA), 1)
    kept = moves * keep.gradient(start)
    ahead = -1 * moves * forget.gradient(start - 0.2 * kept)
    expected = start - 0.5 * (kept + ahead - 0.2 * moves * keep.hessian_times(start, ahead))
    np.testing.assert_allclose(weights(task.model), expected, rtol=0, atol=2e-6)


def test_no_hook_is_left_behind_even_when_a_look_is_broken_off() -> None:
    task = make_task(mask=Saliency())
    objective = task.objectives(0, Shard(batch_size=4))[0]
    looks = objective()
    next(looks)
    assert task.model.get_parameter("fc.weight")._backward_hooks
    del looks
    list(objective())
    assert not task.model.get_parameter("fc.weight")._backward_hooks


# Storing


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    make_task(mask=Saliency(share=0.5)).masked.save(tmp_path)
    return tmp_path / FILE


def test_a_stored_mask_says_what_it_belongs_to(stored: Path) -> None:
    with safe_open(stored, framework="pt") as file:
        found = file.metadata()
    assert found["forget"] == tiny_splits().forget.hash() == tiny_splits().hashes()["forget"]
    assert found["model"] == hash_weights(linear())
    assert found["mask"] == '{"name": "saliency", "share": 0.5}'


def test_a_stored_mask_is_used_again_without_looking_at_the_data(stored: Path) -> None:
    made, again = make_task(mask=Saliency()), make_task(mask=Saliency(file=stored))
    assert_same_bits(again.masked.entries.values(), made.masked.entries.values())
    assert (made.evaluations, again.evaluations) == (4, 0)


def test_a_mask_of_another_forget_set_is_refused_with_both_hashes(stored: Path) -> None:
    splits = tiny_splits()
    other = replace(splits, forget=splits.train.take([0, 1, 2, 4]), retain=splits.train.take([3, 5, 6, 7]))
    with pytest.raises(UserError, match=r"mask.file: .* a forget set of the hash") as caught:
        use(stored, other)
    assert splits.forget.hash() in str(caught.value)
    assert other.forget.hash() in str(caught.value)


def test_a_mask_of_pictures_that_were_normalised_otherwise_is_refused(stored: Path) -> None:
    with pytest.raises(UserError, match=r"mask.file: .* pictures normalised by .*\[0.5\].*; this run's is .*\[0.25\]"):
        use(stored, replace(tiny_splits(), normalise=Normalise((0.25,), (0.5,))))


def test_only_a_mask_that_looked_at_the_retain_set_is_held_to_it(stored: Path, tmp_path: Path) -> None:
    fewer = tiny_splits()
    fewer = replace(fewer, retain=fewer.retain.take([0, 1]))
    use(stored, fewer)
    task_with(FisherRatio()).masked.save(tmp_path)
    ratio = FisherRatio(file=tmp_path / FILE)
    check_mask(ratio, tiny_splits())
    with pytest.raises(UserError, match=r"mask.file: .* a retain set of the hash"):
        check_mask(ratio, fewer)


def test_a_mask_of_other_samples_is_refused_before_there_is_a_network(stored: Path) -> None:
    splits = tiny_splits()
    check_mask(Saliency(file=stored), splits)
    check_mask(NoMask(), splits)
    with pytest.raises(UserError, match=r"mask.file: .* a forget set of the hash"):
        check_mask(Saliency(file=stored), replace(splits, forget=splits.retain))


def use(stored: Path, splits: Splits) -> None:
    losses = (GradientAscent(), CrossEntropy())
    UnlearningTask(linear(), Full(), losses, splits, total_steps=1, mask=Saliency(file=stored))


def test_a_mask_of_another_network_or_of_other_settings_is_refused(stored: Path) -> None:
    with pytest.raises(UserError, match="a network of the hash"):
        make_task(model=linear(seed=1), mask=Saliency(file=stored))
    with pytest.raises(UserError, match=r'settings {"name": "saliency", "share": 0.5}; this run\'s is .*0.4'):
        make_task(mask=Saliency(share=0.4, file=stored))
    with pytest.raises(UserError, match=r"this run's is .*fisher_ratio"):
        make_task(mask=FisherRatio(file=stored))


def test_a_mask_of_other_parameters_is_refused(stored: Path) -> None:
    with safe_open(stored, framework="pt") as file:
        metadata = file.metadata()
    entries = load_file(stored)["fc.weight"]
    for wrong in ({"fc.bias": entries}, {"fc.weight": entries[:2]}):
        save_file({k: v.clone() for k, v in wrong.items()}, stored, metadata=metadata)
        with pytest.raises(UserError, match="of other parameters"):
            make_task(mask=Saliency(file=stored))


def test_a_file_that_is_no_mask_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no safetensors")
    for file in (broken, tmp_path / "nowhere.safetensors"):
        with pytest.raises(UserError, match=r"mask.file: .* cannot be read"):
            make_task(mask=Saliency(file=file))


def test_no_mask_writes_nothing_and_holds_nothing(tmp_path: Path) -> None:
    task = make_task(mask=NoMask())
    assert isinstance(task.masked, Masked)
    task.masked.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (task.masked.entries, task.evaluations) == ({}, 0)


def test_the_hash_of_weights_knows_names_shapes_and_values() -> None:
    hashes = {hash_weights(model) for model in (linear(), linear(2), linear(seed=1), nn.Sequential(*linear()))}
    assert len(hashes) == 4
    assert hash_weights(linear()) == hash_weights(linear())


def test_the_table_finds_each_mask_under_its_own_name() -> None:
    assert {name: kind().name for name, kind in MASKS.items()} == {name: name for name in MASKS}
