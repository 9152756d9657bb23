"""Training pictures, shifted and mirrored at random as the field trains on CIFAR."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from erase.randomness import generator

Augment = Literal["none", "shift", "shift_and_mirror"]
SHARE = 8
"""A shift is at most the side divided by this: 4 of 32 pixels, the padding that CIFAR is trained with."""


def augment(pixels: Tensor, how: Augment, seed: int) -> Tensor:
    """``[b, c, h, w]``, each picture changed on its own; the same for the same seed.

    A shift is uniform in both directions, and what comes in from outside is black. Half of the pictures are mirrored.
    """
    if how == "none":
        return pixels
    (count, _, *sides), source = pixels.shape, generator(seed, "augment")
    most = [side // SHARE for side in sides]
    rows, columns = (
        torch.randint(2 * shift + 1, (count, 1), generator=source) + torch.arange(side)
        for shift, side in zip(most, sides, strict=True)
    )
    if how == "shift_and_mirror":
        mirrored = torch.rand(count, 1, generator=source) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    wide = pad(pixels, (most[1], most[1], most[0], most[0])).movedim(1, -1)
    places = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    return wide[tuple(place.to(pixels.device) for place in places)].movedim(-1, 1).contiguous()
