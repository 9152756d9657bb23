"""Named random streams: the same everywhere, different for every purpose."""

from __future__ import annotations

import hashlib
import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from erase.randomness import derive, generator

PURPOSES = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=6), max_size=4)


def test_a_seed_is_the_first_63_bits_of_a_sha256() -> None:
    # printf "(0, 'noise', 3)" | sha256sum  ->  36bb518f88edb474...; this number may never change: runs depend on it
    assert derive(0, "noise", 3) == 0x36BB518F88EDB474 >> 1
    assert derive(7) == int(hashlib.sha256(b"(7,)").hexdigest()[:16], 16) >> 1


@given(seed=st.integers(-(2**70), 2**70), purpose=PURPOSES)
def test_every_derived_seed_is_one_that_torch_takes(seed: int, purpose: list[str | int]) -> None:
    assert 0 <= derive(seed, *purpose) < 2**63
    generator(seed, *purpose)


def test_different_purposes_have_different_seeds() -> None:
    purposes = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("b", "a"), (1,), ("1",), (1, 2), (12,), ("a", 1), ("a1",)]
    seeds = [derive(seed, *purpose) for seed, purpose in itertools.product((0, 1, 10), purposes)]
    assert len(set(seeds)) == len(seeds)


def test_ten_thousand_steps_do_not_collide() -> None:
    assert len({derive(0, "step", step) for step in range(10_000)}) == 10_000


def test_equal_arguments_give_equal_streams() -> None:
    first, second = generator(3, "noise", 5), generator(3, "noise", 5)
    assert torch.equal(torch.randn(20, generator=first), torch.randn(20, generator=second))
    assert torch.equal(torch.randn(20, generator=first), torch.randn(20, generator=second))


def test_streams_of_neighboring_steps_are_uncorrelated() -> None:
    draws = torch.stack([torch.randn(2000, generator=generator(0, "noise", step)) for step in range(8)])
    apart = torch.corrcoef(draws) - torch.eye(8)
    assert apart.abs().max() < 5 / 2000**0.5


def test_a_stream_neither_reads_nor_moves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first = torch.randn(4, generator=generator(0, "noise"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(torch.randn(4, generator=generator(0, "noise")), first)
