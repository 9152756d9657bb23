"""FID: the Fréchet distance between two sets of features, each taken as a Gaussian."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.evaluation.intervals import Interval
from erase.evaluation.metrics.features import ClipFeatures, FeaturesAsFound
from erase.evaluation.metrics.jackknife import (
    GROUPS,
    Clusters,
    check_sets,
    jackknife,
    split_sets,
)
from erase.evaluation.metrics.loading import device, library
from erase.evaluation.metrics.protocols import Asked

CHUNK = 4096
"""Images whose features are held as float64 at a time."""
Sums = tuple[int, Tensor, Tensor]
"""Number of images, ``[d]`` sum and ``[d, d]`` sum of outer products of their features."""


@dataclass(frozen=True, config=STRICT)
class FID:
    """|mu - nu|^2 + tr(S + T - 2 (S T)^(1/2)) of the means mu, nu and covariances S, T (Heusel et al. 2017).

    Sums are kept in float64, so memory does not grow with the number of images. Below as many images as features the
    covariances are singular and the distance says more about the number of images than about them: such sets are
    refused, and so is a set that would be so without one of its groups.
    """

    name: Literal["fid"] = "fid"
    features: FeaturesAsFound = Field(default_factory=lambda: ClipFeatures(normalize=False))
    """what images are compared by: `clip` or `inception`"""

    def identity(self) -> dict[str, Any]:
        """The extractor and the arithmetic."""
        own = {
            "metric": self.name,
            "arithmetic": "float64, symmetric eigenvalues",
            "torch": library("torch")["version"],
        }
        return {**own, "covariance": "n - 1", "extractor": self.features.identity()}

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses an extractor that cannot be had."""
        self.features.check(pictures)

    def fewest(self) -> int | None:
        """The images needed in each set where each has a prompt of its own; ``None`` for a model of the Hub."""
        width = self.features.width
        return None if width is None else _needed(width)

    def distance(self, before: Tensor, after: Tensor, paired: bool = False, clusters: Clusters = None) -> Interval:
        """Between ``[n, d]`` and ``[m, d]`` features.

        ``paired`` only says that both sets are of the same prompts and seeds: the formula is the same. ``clusters``:
        the prompt of each image, where prompts have several; they are left out whole.
        """
        width = before.shape[-1]
        groups, count = split_sets(before, after, paired, clusters, self.name)
        why = f"more than its {width} features with a tenth left out"
        check_sets((before, after), groups, _needed(width), width + 1, self.name, why)
        whole = [sums(features) for features in (before, after)]

        def without(group: int) -> float:
            parts = [sums(features[of == group]) for features, of in zip((before, after), groups, strict=True)]
            return frechet(*(_less(all_, part) for all_, part in zip(whole, parts, strict=True)))

        found = jackknife(frechet(*whole), without, min(len(before), len(after)), count, lowest=0.0)
        return replace(found, estimate=max(0.0, found.estimate))


def _needed(width: int) -> int:
    """The fewest images of which more than ``width`` are left without a tenth."""
    return width * GROUPS // (GROUPS - 1) + 2


def sums(features: Tensor) -> Sums:
    """Of ``[n, d]`` features, in float64, a chunk at a time."""
    width = features.shape[1]
    total = torch.zeros(width, dtype=torch.float64, device=device())
    outer = torch.zeros(width, width, dtype=torch.float64, device=device())
    for part in chunks(features):
        total += part.sum(0)
        outer += part.T @ part
    return len(features), total, outer


def chunks(features: Tensor, size: int | None = None) -> Iterator[Tensor]:
    """The features as float64, where judges run, ``CHUNK`` at a time or ``size``."""
    for part in features.split(size or CHUNK):
        yield part.to(device(), torch.float64)


def frechet(one: Sums, other: Sums) -> float:
    """The distance; tr (S T)^(1/2) is the sum of the square roots of the eigenvalues of S^(1/2) T S^(1/2)."""
    (mu, s), (nu, t) = _gaussian(one), _gaussian(other)
    values, vectors = torch.linalg.eigh(s)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    return float((mu - nu).square().sum() + s.trace() + t.trace() - 2 * shared)


def _gaussian(total: Sums) -> tuple[Tensor, Tensor]:
    n, total_, outer = total
    mean = total_ / n
    return mean, (outer - n * torch.outer(mean, mean)) / (n - 1)


def _less(one: Sums, other: Sums) -> Sums:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]
