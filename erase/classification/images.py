"""Labelled pictures with names, and the batches drawn from them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erase.classification.augmentation import Augment, augment
from erase.randomness import derive, generator


@dataclass(frozen=True)
class Normalise:
    """(x / 255 - mean) / std, channel by channel: what a network is shown of a picture."""

    mean: tuple[float, ...]
    """Of pixels / 255, one for each channel."""
    std: tuple[float, ...]
    """Of pixels / 255, with the number of pixels below; above 0."""

    @classmethod
    def of(cls, pixels: Tensor) -> Normalise:
        """Mean and standard deviation of ``[n, c, h, w]`` uint8; a channel of one value alone gets the std 1."""
        values = torch.arange(256, dtype=torch.float64) / 255
        means, deviations = [], []
        for channel in pixels.unbind(1):
            share = torch.bincount(channel.reshape(-1), minlength=256).cpu().double() / channel.numel()
            mean = (share * values).sum()
            means.append(mean.item())
            deviations.append((share * (values - mean) ** 2).sum().sqrt().item())
        return cls(tuple(means), tuple(std if std > 1e-9 else 1.0 for std in deviations))

    def __call__(self, pixels: Tensor) -> Tensor:
        """``[n, c, h, w]`` uint8 to float32, on the same device."""
        mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (self.mean, self.std))
        return (pixels.float() / 255 - mean.to(pixels.device)) / std.to(pixels.device)


@dataclass(frozen=True)
class Batch:
    """One objective's examples of one step: everything random about a loss is already in it."""

    images: Tensor
    """``[b, c, h, w]`` float32, normalised."""
    labels: Tensor
    """``[b]`` int64"""
    ids: tuple[str, ...]
    """The samples' names, for messages and for losses that depend on the sample."""
    seed: int
    """Names the randomness of this batch, for losses that draw; the same in every part of it."""
    progress: float = 0.0
    """Share of the run's steps that are done, in [0, 1)."""
    target: Tensor | None = None
    """``[b, ...]`` what the loss worked out once a step."""

    def __len__(self) -> int:
        return len(self.ids)

    def with_target(self, target: Tensor | None) -> Batch:
        """The same batch with its target."""
        return replace(self, target=target)

    def part(self, start: int, stop: int) -> Batch:
        """The examples from ``start`` to ``stop``, with their targets."""
        return replace(
            self,
            images=self.images[start:stop],
            labels=self.labels[start:stop],
            ids=self.ids[start:stop],
            target=None if self.target is None else self.target[start:stop],
        )


@dataclass(frozen=True)
class Images:
    """Pictures of one size, each with a label and a name."""

    pixels: Tensor
    """``[n, c, h, w]`` uint8"""
    labels: Tensor
    """``[n]`` int64"""
    ids: tuple[str, ...]
    """Names of the samples, no two alike."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            raise ValueError(f"pixels must be [n, c, h, w] uint8, found {self.pixels.dtype} {list(self.pixels.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.dim() != 1:
            raise ValueError(f"labels must be [n] int64, found {self.labels.dtype} {list(self.labels.shape)}")
        if not len(self.pixels) == len(self.labels) == len(self.ids):
            raise ValueError(f"{len(self.pixels)} pictures, {len(self.labels)} labels and {len(self.ids)} ids")
        if len(set(self.ids)) < len(self.ids):
            raise ValueError(f"an id belongs to one sample only; found twice: {Counter(self.ids).most_common(1)[0][0]}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def channels(self) -> int:
        """1 for grey pictures, 3 for colors."""
        return self.pixels.shape[1]

    def take(self, places: Tensor | Sequence[int]) -> Images:
        """The samples at ``places`` (whole numbers, each once), in that order."""
        index = torch.as_tensor(places, dtype=torch.int64, device=self.pixels.device)
        return Images(self.pixels[index], self.labels[index], tuple(self.ids[place] for place in index.tolist()))

    def with_labels(self, labels: Tensor) -> Images:
        """The same pictures with other labels."""
        return replace(self, labels=labels)

    def to(self, device: torch.device | str) -> Images:
        """The same on a device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def hash(self) -> str:
        """SHA-256 of pixels, labels and ids, in their order."""
        digest = hashlib.sha256(json.dumps([list(self.pixels.shape), self.ids]).encode())
        for values in (self.labels, self.pixels):
            digest.update(values.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def draw(
        self, count: int, seed: int, purpose: str, number: int, normalise: Normalise, how: Augment = "none"
    ) -> Batch:
        """The batch of a number, from 0: a function of the arguments alone.

        All samples follow each other in an order drawn anew for every pass; batch s takes places s x count to
        (s + 1) x count of that endless row. So no sample is seen twice before all were seen once. ``how`` says what
        is done to each picture, at random, anew in each batch.
        """
        if not len(self):
            raise ValueError("there is nothing to draw from")
        start, stop, size = number * count, (number + 1) * count, len(self)
        first, last = start // size, (stop - 1) // size
        row = [torch.randperm(size, generator=generator(seed, purpose, epoch)) for epoch in range(first, last + 1)]
        places = torch.cat(row)[start - first * size : stop - first * size]
        index, own = places.to(self.pixels.device), derive(seed, purpose, number)
        return Batch(
            images=normalise(augment(self.pixels[index], how, own)),
            labels=self.labels[index],
            ids=tuple(self.ids[place] for place in places.tolist()),
            seed=own,
        )
