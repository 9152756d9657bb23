"""Stacked tensors read as their concatenation does, and copy no more than is asked for."""

from __future__ import annotations

import pytest
import torch

from erase.diffusion.stacked import Stacked

PARTS = [torch.arange(6.0).view(3, 2), torch.arange(6.0, 10.0).view(2, 2), torch.arange(10.0, 12.0).view(1, 2)]
WHOLE = torch.cat(PARTS)


@pytest.mark.parametrize("key", [0, 3, -1, slice(1, 5), slice(None), [5, 0, 3], torch.tensor([2, 2, 4])], ids=str)
def test_rows_are_those_of_the_concatenation(key: object) -> None:
    assert torch.equal(Stacked(PARTS)[key], WHOLE[key])  # type: ignore[index]


def test_stacks_can_be_stacked() -> None:
    both = Stacked([Stacked(PARTS[:2]), PARTS[2]])
    assert torch.equal(both[:], WHOLE) and both.shape == WHOLE.shape and len(both) == 6
    assert torch.equal(torch.stack(list(both)), WHOLE)


def test_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError):
        Stacked(PARTS)[6]


def test_the_parts_are_not_copied() -> None:
    part = torch.zeros(2, 2)
    stacked = Stacked([part, part])
    part[0, 0] = 7.0
    assert stacked[0][0] == stacked[2][0] == 7.0
