"""The metrics that say which concept a picture shows, and what each of them cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

from erase.evaluation.metrics import AnyMetric, ConceptClassifier, ImagenetClassifier, ZeroShot
from erase.generation.prompts import PromptRow

JUDGES = ("concept_classifier", "imagenet_classifier", "zero_shot", "nudity")
"""Metrics that say which concept a picture shows."""


def judge_problems(
    judge: AnyMetric, target: str, domain: str, neighbours: Sequence[str], kept: Sequence[PromptRow]
) -> list[str]:
    """What the judge cannot tell: the target, or a neighbour that is to be looked at where the target is not asked."""
    seen, name = judged_domains(judge, domain), judge.name
    if domain not in seen:
        return [f"judge: {name} sees {', '.join(seen)}, but {target!r} is a concept of {domain}"]
    if name == "nudity" and neighbours:
        return [f"neighbours: found {neighbours[0]!r}; the judge nudity knows the target alone; leave them out"]
    told = {concept for row in kept for where, concept in row.concepts.items() if where in seen}
    why = f"{name} sees {', '.join(seen)}, and prompts of what is erased do not count"
    lost = [neighbour for neighbour in neighbours if neighbour not in told]
    return [f"neighbours: {neighbour!r} is asked for where it cannot be judged: {why}" for neighbour in lost]


def judged_domains(metric: AnyMetric, domain: str) -> list[str]:
    """The domains in which a judge says what a picture shows; the detector of nudity knows the target's alone."""
    if isinstance(metric, ZeroShot):
        return list(metric.concepts)
    return list(metric.domains) if isinstance(metric, ConceptClassifier | ImagenetClassifier) else [domain]
