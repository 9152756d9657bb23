"""Batches are a function of their arguments, and every sample comes once a pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from erase.classification.images import Batch, Images, Normalise

PLAIN = Normalise((0.0,), (1.0,))


def numbered(count: int) -> Images:
    """Picture k is all of value k."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 1, 2, 2).contiguous()
    return Images(pixels, torch.arange(count) % 3, tuple(f"s{place}" for place in range(count)))


@given(count=st.integers(1, 9), size=st.integers(1, 7), passes=st.integers(1, 3))
def test_every_sample_comes_once_in_each_pass(count: int, size: int, passes: int) -> None:
    images, steps = numbered(size), -(-passes * size // count)
    seen = [name for step in range(steps) for name in images.draw(count, 4, "retain", step, PLAIN).ids]
    for epoch in range(passes):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == sorted(images.ids)


def test_a_batch_is_a_function_of_seed_purpose_and_step() -> None:
    images = numbered(50)
    first = images.draw(20, 1, "retain", 0, PLAIN)
    again = images.draw(20, 1, "retain", 0, PLAIN)
    assert (first.ids, first.seed) == (again.ids, again.seed)
    assert torch.equal(first.images, again.images)
    others = [images.draw(20, *where, PLAIN) for where in ((2, "retain", 0), (1, "forget", 0), (1, "retain", 1))]
    assert len({first.ids, *(other.ids for other in others)}) == 4
    assert len({first.seed, *(other.seed for other in others)}) == 4


def test_passes_come_in_different_orders() -> None:
    images = numbered(20)
    assert images.draw(20, 1, "retain", 0, PLAIN).ids != images.draw(20, 1, "retain", 1, PLAIN).ids


def test_a_batch_holds_each_samples_picture_label_and_name() -> None:
    batch = numbered(9).draw(5, 0, "forget", 0, PLAIN)
    for picture, label, name in zip(batch.images, batch.labels, batch.ids, strict=True):
        number = int(name[1:])
        assert picture.flatten().tolist() == pytest.approx([number / 255] * 4)
        assert label == number % 3


def test_nothing_can_be_drawn_from_no_samples() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        numbered(3).take([]).draw(1, 0, "forget", 0, PLAIN)


def test_a_part_of_a_batch_is_cut_with_its_target_and_keeps_the_rest() -> None:
    batch = Batch(torch.zeros(4, 1, 2, 2), torch.arange(4), tuple("abcd"), seed=7, progress=0.5)
    part = batch.with_target(torch.arange(4) * 10).part(1, 3)
    assert (part.labels.tolist(), part.ids, part.images.shape) == ([1, 2], ("b", "c"), (2, 1, 2, 2))
    assert isinstance(part.target, Tensor)
    assert part.target.tolist() == [10, 20]
    assert (part.seed, part.progress, len(part)) == (7, 0.5, 2)
    assert batch.part(0, 2).target is None


def test_normalised_pixels_are_the_hand_worked_ones() -> None:
    pixels = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    found = Normalise((0.5, 0.2), (0.5, 0.1))(pixels)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([-1.0, 1.0, 0.0, 2.0], abs=1e-6)


def test_mean_and_deviation_of_pixels_are_those_of_torch() -> None:
    pixels = torch.randint(256, (7, 3, 5, 4), dtype=torch.uint8)
    found, scaled = Normalise.of(pixels), pixels.double() / 255
    assert found.mean == pytest.approx(scaled.mean(dim=(0, 2, 3)).tolist(), rel=1e-12)
    assert found.std == pytest.approx(scaled.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-12)
    shown = found(pixels)
    assert shown.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_channel_of_one_value_is_only_shifted() -> None:
    found = Normalise.of(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))
    assert found.mean[0] == pytest.approx(0.2)
    assert found.std[0] == 1.0


def test_taking_keeps_the_order_asked_for() -> None:
    some = numbered(5).take([3, 1])
    assert (some.ids, some.labels.tolist(), some.pixels[:, 0, 0, 0].tolist()) == (("s3", "s1"), [0, 1], [3, 1])
    assert len(numbered(5).take(torch.tensor([], dtype=torch.int64))) == 0


def test_the_hash_changes_with_a_pixel_a_label_a_name_and_the_order() -> None:
    images = numbered(4)
    pixels = images.pixels.clone()
    pixels[2, 0, 1, 1] += 1
    others = [
        Images(pixels, images.labels, images.ids),
        images.with_labels(images.labels.flip(0)),
        Images(images.pixels, images.labels, ("s0", "s1", "s2", "x")),
        images.take([1, 0, 2, 3]),
        images.take([0, 1, 2]),
        Images(images.pixels.view(4, 1, 4, 1), images.labels, images.ids),
    ]
    assert images.hash() == numbered(4).hash()
    assert len({images.hash(), *(other.hash() for other in others)}) == 7


@pytest.mark.parametrize(
    ("pixels", "labels", "ids", "words"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2).long(), ("a", "b"), "uint8"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2), ("a", "b"), "int64"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2).long(), ("a",), "2 pictures, 2 labels and 1 ids"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2).long(), ("a", "a"), "found twice: a"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    pixels: Tensor, labels: Tensor, ids: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Images(pixels, labels, ids)
