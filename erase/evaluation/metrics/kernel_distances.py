"""KID and CMMD: the maximum mean discrepancy between two sets of features, over all pairs of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.evaluation.intervals import Interval
from erase.evaluation.metrics.features import ClipFeatures, FeaturesAsFound, UnitFeatures
from erase.evaluation.metrics.frechet import chunks
from erase.evaluation.metrics.jackknife import (
    GROUPS,
    Clusters,
    check_sets,
    jackknife,
    split_sets,
)
from erase.evaluation.metrics.loading import library
from erase.evaluation.metrics.protocols import Asked

Kernel = Callable[[Tensor, Tensor], Tensor]
CHUNK = 1024
"""Images of each set whose pairs are held at a time."""
FEWEST = 2 * GROUPS
"""Images in each set: two in each group that is left out."""


@plain_dataclass(frozen=True)
class PairSums:
    """Sums of a kernel over pairs of images, by the groups of both: what leaves any group out without a new pass."""

    counts: Tensor
    """``[2, groups]`` images of both sets."""
    within: tuple[Tensor, Tensor]
    """``[groups, groups]`` each, over pairs of one set, an image with itself included."""
    itself: Tensor
    """``[2, groups]`` over each image with itself."""
    across: Tensor
    """``[groups, groups]`` over one image of either set."""
    twins: Tensor | None = None
    """``[groups]`` over each image and its twin, where both sets are of the same prompts and seeds."""

    def discrepancy(self, unbiased: bool, without: int | None = None) -> float:
        """MMD^2: mean k(x, x') + mean k(y, y') - 2 mean k(x, y); unbiased if no image is paired with itself.

        An image's twin of the same prompt and seed is like itself: where there are twins, the unbiased mean over
        k(x, y) leaves them out too (Gretton et al. 2012, equation 4), and equal sets are at distance 0.
        """
        kept = torch.ones(len(self.across), dtype=torch.float64, device=self.across.device)
        if without is not None:
            kept[without] = 0
        n, m = (self.counts @ kept).tolist()
        across = float(kept @ self.across @ kept)
        if unbiased and self.twins is not None:
            total = -2 * (across - float(self.twins @ kept)) / (n * (n - 1))
        else:
            total = -2 * across / (n * m)
        for size, pairs, itself in zip((n, m), self.within, self.itself @ kept, strict=True):
            same = float(kept @ pairs @ kept)
            total += (same - float(itself)) / (size * (size - 1)) if unbiased else same / size**2
        return total


def pair_sums(
    before: Tensor, after: Tensor, kernel: Kernel, groups: Sequence[Tensor], paired: bool = False
) -> PairSums:
    """Over all pairs, in float64, a chunk of each set at a time; ``groups`` are ``[n]`` and ``[m]``."""
    count = 1 + max(int(of.max()) for of in groups)
    one_hot = [torch.nn.functional.one_hot(of, count).double() for of in groups]
    sets = [(before, one_hot[0]), (after, one_hot[1])]
    itself = torch.stack([_twins(features, features, of, kernel) for features, of in sets])
    within = [_between(part, part, kernel) for part in sets]
    counts = torch.stack([of.sum(0) for of in one_hot]).to(itself.device)
    twins = _twins(before, after, one_hot[0], kernel) if paired else None
    return PairSums(counts, (within[0], within[1]), itself, _between(sets[0], sets[1], kernel), twins)


def _twins(one: Tensor, other: Tensor, of: Tensor, kernel: Kernel) -> Tensor:
    """``[groups]``, over image i of one set and image i of the other."""
    pairs = zip(chunks(one, CHUNK), chunks(other, CHUNK), strict=True)
    diagonal = torch.cat([kernel(left[:, None], right[:, None]).flatten() for left, right in pairs])
    return diagonal @ of.to(diagonal.device)


def _between(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], kernel: Kernel) -> Tensor:
    """``[groups, groups]``; within one set a pair of chunks is looked at once and counted both ways round."""
    total: Tensor | float = 0.0
    for number, (left, left_of) in enumerate(_chunks(*one)):
        for place, (right, right_of) in enumerate(_chunks(*other)):
            if one is other and place < number:
                continue
            found = left_of.T @ kernel(left, right) @ right_of
            total = total + (found + found.T if one is other and place > number else found)
    return torch.as_tensor(total)


def _chunks(features: Tensor, of: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(chunks(features, CHUNK), chunks(of, CHUNK), strict=True)


def cubic(left: Tensor, right: Tensor) -> Tensor:
    """(x y / d + 1)^3 of ``[..., n, d]`` and ``[..., m, d]``."""
    return (left @ right.mT).div_(left.shape[-1]).add_(1).pow_(3)


def gaussian(sigma: float) -> Kernel:
    """exp(-|x - y|^2 / (2 sigma^2))."""

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        squares = (left @ right.mT).mul_(-2)
        squares.add_(left.square().sum(-1)[..., :, None]).add_(right.square().sum(-1)[..., None, :])
        return squares.clamp_(min=0).div_(-2 * sigma**2).exp_()

    return kernel


@dataclass(frozen=True, config=STRICT)
class KID:
    """The unbiased MMD^2 with the kernel (x y / d + 1)^3 (Binkowski et al. 2018), over all pairs of images.

    The usual mean over random subsets estimates the same number with more noise. It can fall below zero. Of two sets of
    the same prompts and seeds say ``paired``: an image is then never compared with its twin, which is nearer than any
    other and would draw the distance below zero.
    """

    name: Literal["kid"] = "kid"
    features: FeaturesAsFound = Field(default_factory=lambda: ClipFeatures(normalize=False))
    """what images are compared by: `clip` or `inception`"""

    def identity(self) -> dict[str, Any]:
        """The extractor and the kernel."""
        own = {"metric": self.name, "kernel": "(x y / d + 1)^3", "estimator": "unbiased, all pairs but twins"}
        return {**own, "torch": library("torch")["version"], "extractor": self.features.identity()}

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses an extractor that cannot be had."""
        self.features.check(pictures)

    def fewest(self) -> int:
        """The images needed in each set."""
        return FEWEST

    def distance(self, before: Tensor, after: Tensor, paired: bool = False, clusters: Clusters = None) -> Interval:
        """Between ``[n, d]`` and ``[m, d]`` features; ``paired``: image i of both is of one prompt and seed.

        ``clusters``: the prompt of each image, where prompts have several; the jackknife leaves them out whole.
        """
        found, n, groups = _summed(self.name, before, after, cubic, paired, clusters)
        return jackknife(found.discrepancy(True), lambda group: found.discrepancy(True, group), n, groups)


@dataclass(frozen=True, config=STRICT)
class CMMD:
    """1000 MMD^2 with a Gaussian kernel of width 10 on unit CLIP features (Jayasumana et al. 2024).

    As its authors' code has it, an image is paired with itself too: the value is biased upward by about 1 / n. Of sets
    of the same prompts and seeds it counts an image's twin as well, so that equal sets are at distance 0 and none is
    below. The paper's extractor is ViT-L-14-336 with the weights `openai`.
    """

    name: Literal["cmmd"] = "cmmd"
    sigma: ClassVar[float] = 10.0
    scale: ClassVar[float] = 1000.0
    features: UnitFeatures = Field(
        default_factory=lambda: ClipFeatures(model="ViT-L-14-336", pretrained="openai", normalize=True)
    )
    """what images are compared by: `clip` with normalized features, as the paper does, or another"""

    def identity(self) -> dict[str, Any]:
        """The extractor and the kernel."""
        own = {"metric": self.name, "kernel": "exp(-|x - y|^2 / 200)", "estimator": "biased, all pairs", "scale": 1000}
        return {**own, "torch": library("torch")["version"], "extractor": self.features.identity()}

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses an extractor that cannot be had."""
        self.features.check(pictures)

    def fewest(self) -> int:
        """The images needed in each set."""
        return FEWEST

    def distance(self, before: Tensor, after: Tensor, paired: bool = False, clusters: Clusters = None) -> Interval:
        """Between ``[n, d]`` and ``[m, d]`` features; ``paired`` sets have the same formula, see above.

        ``clusters``: the prompt of each image, where prompts have several; the jackknife leaves them out whole.
        """
        found, n, groups = _summed(self.name, before, after, gaussian(self.sigma), paired, clusters)

        def scaled(group: int | None) -> float:
            return self.scale * found.discrepancy(False, group)

        return jackknife(scaled(None), scaled, n, groups, lowest=0.0)


def _summed(
    metric: str, before: Tensor, after: Tensor, kernel: Kernel, paired: bool, clusters: Clusters
) -> tuple[PairSums, int, int]:
    """The sums over all pairs, the images of the smaller set, and the number of groups."""
    groups, count = split_sets(before, after, paired, clusters, metric)
    check_sets((before, after), groups, FEWEST, 2, metric, "two for each group of the jackknife")
    return pair_sums(before, after, kernel, groups, paired), min(len(before), len(after)), count
