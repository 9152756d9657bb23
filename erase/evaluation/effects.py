"""What an erasure changed: each measure before and after, on the same prompts and seeds, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erase.errors import refuse
from erase.evaluation.intervals import bootstrap_mean, cluster_means, paired_difference, share_of
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
    asks: tuple[str, str] | None = None
    """The domain and concept asked for, where that alone says which pictures count: they are then looked up."""


def measures(target: str, domain: str, domains: Sequence[str], none: str | None) -> list[Measure]:
    """The summary scores of :func:`erase.evaluation.scores.summarize`, one by one.

    ``none`` is the judge's label of a picture that shows no concept at all; ``None`` if it has no such label.
    """

    def erased(picture: Judged) -> bool:
        return picture.asked.get(domain) == target

    def kept(picture: Judged) -> bool:
        return picture.asked.get(domain) != target

    def kept_in(name: str) -> Callable[[Judged], bool]:
        return lambda picture: kept(picture) and name in picture.asked

    def erased_in(name: str) -> Callable[[Judged], bool]:
        return lambda picture: erased(picture) and name in picture.asked

    sides = {"kept": kept, "erased": erased}
    across, empty = [d for d in domains if d != domain], sides if none is not None else {}
    return [
        Measure("UA", erased, lambda p: p.seen[domain] != target),
        Measure("IRA", kept_in(domain), right(domain)),
        *(Measure(f"CRA {d}, kept", kept_in(d), right(d)) for d in across),
        *(Measure(f"CRA {d}, erased", erased_in(d), right(d)) for d in across),
        *(Measure(f"none, {s}", counts, lambda p: p.seen[domain] == none) for s, counts in empty.items()),
        *(Measure(f"CLIP, {s}", counts, lambda p: p.clip, False) for s, counts in sides.items()),
    ]


def right(domain: str) -> Value:
    """Whether the classifier sees in a domain what was asked for."""
    return lambda picture: picture.seen[domain] == picture.asked[domain]


def concept_measures(asked: Mapping[str, Sequence[str]]) -> list[Measure]:
    """The accuracy of each concept of each domain, over the pictures whose prompt names it.

    A measure bears its concept's name, so a name that two domains share is an error.
    """
    domains: dict[str, list[str]] = {}
    for domain, concepts in asked.items():
        for concept in dict.fromkeys(concepts):
            domains.setdefault(concept, []).append(domain)
    refuse(
        f"prompts: {concept!r} is a concept of {' and of '.join(shared)}; each has a row of its own, so name them apart"
        for concept, shared in domains.items()
        if len(shared) > 1
    )

    def names(domain: str, concept: str) -> Callable[[Judged], bool]:
        return lambda picture: picture.asked.get(domain) == concept

    return [
        Measure(concept, names(domain, concept), right(domain), asks=(domain, concept))
        for concept, (domain,) in domains.items()
    ]


def effects(
    wanted: Sequence[Measure],
    before: Sequence[Judged],
    after: Sequence[Judged],
    prompts: Sequence[Hashable] | None = None,
    *,
    comparisons: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The effect on each measure that has a picture: both sides and their difference, with intervals and the verdict.

    The intervals of the differences hold for all measures together (Bonferroni), or for as many ``comparisons`` as
    share their table. ``prompts`` is the prompt of each picture where prompts have several: those are not independent,
    and what counts is prompts.
    """
    there = {key: (measure, places) for key, measure, places in _places(wanted, before) if places}
    found = {}
    for key, (measure, places) in there.items():
        then, now = ([measure.value(side[place]) for place in places] for side in (before, after))
        clusters = None if prompts is None else [prompts[place] for place in places]
        found[key] = effect(then, now, measure.is_share, clusters, comparisons or len(there))
    return found


def _places(wanted: Sequence[Measure], pictures: Sequence[Judged]) -> Iterator[tuple[str, Measure, list[int]]]:
    """Each measure's pictures; those of all concepts are found in one pass."""
    asking: dict[tuple[str, str], list[int]] = {}
    for place, picture in enumerate(pictures):
        for pair in picture.asked.items():
            asking.setdefault(pair, []).append(place)
    for measure in wanted:
        if measure.asks is not None:
            yield measure.key, measure, asking.get(measure.asks, [])
        else:
            yield measure.key, measure, [place for place, picture in enumerate(pictures) if measure.counts(picture)]


def effect(
    before: Sequence[Any],
    after: Sequence[Any],
    is_share: bool,
    clusters: Sequence[Hashable] | None = None,
    comparisons: int = 1,
) -> dict[str, Any]:
    """Both sides' means and their difference, pair by pair; ``is_share``: the values are booleans.

    With ``clusters``, the prompt of each picture, both sides and the difference count prompts.
    """

    def interval(values: Sequence[Any]) -> dict[str, Any]:
        if is_share:
            return share_of(values, clusters).as_dict()
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
