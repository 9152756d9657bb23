"""What an erasure changed: each measure before and after, on the same prompts and seeds, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erase.evaluation.intervals import bootstrap_mean, cluster_means, paired_difference, wilson
from erase.evaluation.scores import Judged

Value = Callable[[Judged], Any]
SEED = 0
"""Of the bootstraps: the same pictures give the same intervals."""


@dataclass(frozen=True)
class Measure:
    """One number a picture, and the pictures that it is taken of."""

    key: str
    """As ``results.json`` has it: ``UA``, ``CRA color, kept`` ..."""
    counts: Callable[[Judged], bool]
    """Whether a picture is one of those."""
    value: Value
    is_share: bool = True
    """Whether a value is 0 or 1, and so the mean a share."""


def measures(target: str, domain: str, domains: Sequence[str], none: str) -> list[Measure]:
    """The summary scores of :func:`erase.evaluation.scores.summarize`, one by one."""

    def erased(picture: Judged) -> bool:
        return picture.asked.get(domain) == target

    def kept(picture: Judged) -> bool:
        return picture.asked.get(domain) != target

    def kept_in(name: str) -> Callable[[Judged], bool]:
        return lambda picture: kept(picture) and name in picture.asked

    def erased_in(name: str) -> Callable[[Judged], bool]:
        return lambda picture: erased(picture) and name in picture.asked

    sides = {"kept": kept, "erased": erased}
    across = [d for d in domains if d != domain]
    return [
        Measure("UA", erased, lambda p: p.seen[domain] != target),
        Measure("IRA", kept_in(domain), right(domain)),
        *(Measure(f"CRA {d}, kept", kept_in(d), right(d)) for d in across),
        *(Measure(f"CRA {d}, erased", erased_in(d), right(d)) for d in across),
        *(Measure(f"none, {s}", counts, lambda p: p.seen[domain] == none) for s, counts in sides.items()),
        *(Measure(f"CLIP, {s}", counts, lambda p: p.clip, False) for s, counts in sides.items()),
    ]


def right(domain: str) -> Value:
    """Whether the classifier sees in a domain what was asked for."""
    return lambda picture: picture.seen[domain] == picture.asked[domain]


def concept_measures(asked: Mapping[str, Sequence[str]]) -> list[Measure]:
    """The accuracy of each concept of each domain, over the pictures whose prompt names it."""

    def names(domain: str, concept: str) -> Callable[[Judged], bool]:
        return lambda picture: picture.asked.get(domain) == concept

    return [Measure(c, names(d, c), right(d)) for d, concepts in asked.items() for c in concepts]


def effects(
    wanted: Sequence[Measure],
    before: Sequence[Judged],
    after: Sequence[Judged],
    prompts: Sequence[Hashable] | None = None,
) -> dict[str, dict[str, Any]]:
    """The effect on each measure that has a picture: both sides and their difference, with intervals and the verdict.

    The intervals of the differences hold for all measures together (Bonferroni). ``prompts`` is the prompt of each
    picture where prompts have several: those are not independent, and what counts is prompts.
    """
    there = [m for m in wanted if any(map(m.counts, before))]
    found = {}
    for measure in there:
        places = [place for place, picture in enumerate(before) if measure.counts(picture)]
        then, now = ([measure.value(side[place]) for place in places] for side in (before, after))
        clusters = None if prompts is None else [prompts[place] for place in places]
        found[measure.key] = effect(then, now, measure.is_share, clusters, len(there))
    return found


def effect(
    before: Sequence[Any],
    after: Sequence[Any],
    is_share: bool,
    clusters: Sequence[Hashable] | None = None,
    comparisons: int = 1,
) -> dict[str, Any]:
    """Both sides' means and their difference, pair by pair; ``is_share``: the values are booleans."""

    def interval(values: Sequence[Any]) -> dict[str, Any]:
        if is_share and clusters is None:
            return wilson(sum(values), len(values)).as_dict()
        means = cluster_means(np.asarray(values, dtype=np.float64), clusters or range(len(values)))
        one = {"estimate": float(means.mean()), "low": None, "high": None, "n": len(means)}
        return bootstrap_mean(means, SEED).as_dict() if len(means) > 1 else one

    change = paired_difference(before, after, seed=SEED, clusters=clusters, comparisons=comparisons)
    return {
        "images": len(before),
        "is_share": is_share,
        "before": interval(before),
        "after": interval(after),
        "difference": change.difference.as_dict(),
        "verdict": change.verdict,
        "comparisons": comparisons,
    }
