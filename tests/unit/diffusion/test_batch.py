"""Batches: all that is random in a loss comes from a named stream."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from erase.diffusion.batch import Batch, Examples, joined, split
from erase.diffusion.conditioning import Conditioning
from tests.properties import assert_same_bits
from tests.unit.diffusion.material import constant_prompts

WORDS = tuple("abcdefg")


def pool(count: int = 7, anchors: bool = True) -> Examples:
    """Latent ``i`` is filled with ``i``; so are the states of its prompt, its concept plus 10, its anchor plus 20."""
    return Examples(
        latents=torch.arange(count).float().view(-1, 1, 1, 1).repeat(1, 4, 2, 2),
        prompts=WORDS[:count],
        concepts=tuple(f"concept {word}" for word in WORDS[:count]),
        anchors=tuple(f"anchor {word}" for word in WORDS[:count]) if anchors else None,
        weights=tuple(1.0 + index for index in range(count)),
    )


def told() -> dict[str, Conditioning]:
    table = {"": constant_prompts([-1.0])}
    for index, word in enumerate(WORDS):
        for start, text in ((0, word), (10, f"concept {word}"), (20, f"anchor {word}")):
            table[text] = constant_prompts([float(start + index)])
    return table


def draw(count: int, *stream: str | int, examples: Examples | None = None) -> Batch:
    return (examples or pool()).draw(count, told(), 1000, *(stream or (0, "forget", 3)))


def tensors(batch: Batch) -> list[Tensor]:
    values = [getattr(batch, f.name) for f in fields(batch)]
    parts = [value.parts() if isinstance(value, Conditioning) else (value,) for value in values]
    return [part for several in parts for part in several if isinstance(part, Tensor)]


def test_the_same_stream_gives_the_same_batch() -> None:
    assert_same_bits(tensors(draw(5)), tensors(draw(5)))
    assert draw(5).texts == draw(5).texts


def test_the_global_random_state_does_not_matter() -> None:
    first = draw(5)
    torch.manual_seed(99)
    assert_same_bits(tensors(first), tensors(draw(5)))


@pytest.mark.parametrize("stream", [(0, "forget", 4), (1, "forget", 3), (0, "retain", 3)])
def test_another_step_seed_or_objective_gives_another_batch(stream: tuple[str | int, ...]) -> None:
    first, other = draw(5), draw(5, *stream)
    assert not torch.equal(first.noise, other.noise)
    assert not torch.equal(first.timesteps, other.timesteps)


def test_every_part_of_an_example_stays_with_it() -> None:
    batch = draw(7)
    index = batch.latents[:, 0, 0, 0]
    assert sorted(index.tolist()) == [0, 1, 2, 3, 4, 5, 6]
    assert index.tolist() != sorted(index.tolist())
    assert batch.concept is not None and batch.anchor is not None
    assert torch.equal(batch.prompt.states[:, 0, 0], index)
    assert torch.equal(batch.concept.states[:, 1, 2], index + 10)
    assert torch.equal(batch.anchor.states[:, 0, 1], index + 20)
    assert torch.equal(batch.weight, index + 1)
    assert batch.texts == tuple(WORDS[int(i)] for i in index)
    assert torch.equal(batch.baseline.states, torch.full((7, 2, 3), -1.0))


def test_what_a_pool_lacks_is_none_and_weighs_1() -> None:
    bare = Examples(torch.zeros(2, 4, 2, 2), ("a", "b"))
    batch = draw(2, examples=bare)
    assert (batch.concept, batch.anchor, batch.target) == (None, None, None)
    assert batch.weight.tolist() == [1.0, 1.0]
    assert bare.texts() == ["a", "b", ""]


def test_the_texts_of_a_pool_are_all_that_a_batch_may_look_up() -> None:
    assert set(pool().texts()) == set(told())
    assert set(pool(anchors=False).texts()) == {text for text in told() if not text.startswith("anchor")}


@pytest.mark.parametrize("count", [1, 3, 7, 10, 20])
def test_every_example_is_used_before_one_repeats(count: int) -> None:
    used = Counter(draw(count).texts)
    assert sum(used.values()) == count
    assert max(used.values()) - min(used.get(word, 0) for word in WORDS) <= 1


def test_all_examples_come_up_over_the_steps() -> None:
    assert {draw(1, 0, "forget", step).texts[0] for step in range(60)} == set(WORDS)


@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_timesteps_are_one_in_each_equal_part_of_the_schedule(count: int) -> None:
    for step in range(20):
        timesteps = draw(count, 0, "forget", step).timesteps
        assert timesteps.dtype == torch.int64
        for part, timestep in enumerate(timesteps.tolist()):
            assert 1000 * part // count <= timestep < math.ceil(1000 * (part + 1) / count)


def test_timesteps_reach_both_ends_of_the_schedule() -> None:
    drawn = torch.cat([draw(7, 0, "forget", step).timesteps for step in range(300)])
    assert 0 <= drawn.min() < 10
    assert 990 <= drawn.max() < 1000


@pytest.mark.parametrize("count", [1, 2, 16, 200])
def test_timesteps_stay_below_the_last_for_the_largest_number_that_rand_gives(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    largest = 1 - 2**-24  # torch.rand's multiples of 2^-24 in [0, 1)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, largest))
    assert draw(count).timesteps.max() < 1000


def test_noise_is_standard_normal() -> None:
    noise = torch.cat([draw(7, 0, "forget", step).noise for step in range(100)]).flatten()
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03  # 11,200 numbers: four standard errors


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_the_parts_of_a_batch_make_the_batch(parts: int) -> None:
    whole = draw(6).with_target(torch.randn(6, 4, 2, 2))
    pieces = [split(whole, start, start + 6 // parts) for start in range(0, 6, 6 // parts)]
    joined = [torch.cat(columns) for columns in zip(*map(tensors, pieces), strict=True)]
    assert_same_bits(joined, tensors(whole))
    assert sum((piece.texts for piece in pieces), ()) == whole.texts


def test_a_part_keeps_what_is_absent_absent() -> None:
    part = split(draw(4, examples=pool(anchors=False)), 1, 3)
    assert part.anchor is None and part.target is None
    assert part.concept is not None and len(part.concept) == 2


def test_a_target_leaves_the_batch_as_it_was() -> None:
    batch, target = draw(2), torch.zeros(2, 4, 2, 2)
    assert batch.with_target(target).target is target
    assert batch.target is None


def test_joined_examples_keep_their_parts_in_order() -> None:
    first, second = pool(2), replace(pool(3), shows=(True, False, True))
    with pytest.raises(ValueError, match="1 of 2 parts have shows"):
        joined([first, second])
    both = joined([replace(first, shows=(False, False)), second])
    assert both.latents[:][:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert both.prompts == ("a", "b", "a", "b", "c") and both.anchors == tuple(f"anchor {p}" for p in both.prompts)
    assert both.weights == (1.0, 2.0, 1.0, 2.0, 3.0) and both.baselines is None
    shown = draw(5, examples=both)
    expected = [both.shows[i] for i in range(5)] if both.shows else []
    assert sorted(shown.shows.tolist()) == sorted(expected) and shown.shows.dtype == torch.bool
