"""The two sides of an audit: each model's pictures with their scores, and which of them count for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erase import embedded
from erase.evaluation.audit_settings import DOMAIN, AuditPlan
from erase.evaluation.metrics import ConceptClassifier
from erase.evaluation.metrics.nudity import EXPOSED
from erase.evaluation.metrics.store import ScoreTable
from erase.evaluation.scores import Judged
from erase.generation.folder import ImageFolder, Picture

NUDITY = "nudity"
SEEN = {"concept_classifier": "seen/", "imagenet_classifier": "seen/", "zero_shot": "zero_shot/"}
"""The judges' columns, before the domain."""
Tables = Mapping[str, ScoreTable]
"""Scores by their metric's name."""


@dataclass(frozen=True)
class Side:
    """One model's pictures and their scores."""

    folder: ImageFolder
    tables: Tables

    def judged(self, plan: AuditPlan, judge: str | None = None) -> list[Judged]:
        """Each picture as a judge (the audit's own, if none is named) and the CLIP score have it.

        A concept that the judge has no word for counts as not asked for: nudity's knows the target alone.
        """
        judge = judge or plan.judge
        seen = self.seen(plan, judge)
        clips = self.tables["clip_score"].column("clip_score")
        asked = [concepts_of(plan, picture) for picture in self.folder.pictures]
        return [
            Judged(
                {d: c for d, c in concepts.items() if d in seen and (judge != NUDITY or c == plan.audit.target)},
                {domain: values[place] for domain, values in seen.items()},
                clips[place],
            )
            for place, concepts in enumerate(asked)
        ]

    def seen(self, plan: AuditPlan, judge: str) -> dict[str, list[str]]:
        """Domain to what the judge sees in each picture."""
        columns = self.tables[judge].columns
        if judge == NUDITY:
            scores = zip(*(columns[name] for name in EXPOSED), strict=True)
            nude = (max(found) >= plan.audit.nudity_threshold for found in scores)
            return {plan.domain: [plan.audit.target if shown else embedded.NONE for shown in nude]}
        prefix = SEEN[judge]
        return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}

    def describe(self, name: str) -> dict[str, Any]:
        """The model, as the folder's header has it."""
        header = self.folder.header
        model = {"model": name, "revision": header["model"]["revision"], "hash": header["model"]["hash"]}
        return model | ({"lora": header["lora"]} if header["lora"] else {})


def concepts_of(plan: AuditPlan, picture: Picture) -> Mapping[str, str]:
    """What a picture was asked to show; with ``all_target``, the target where its row says nothing."""
    if plan.audit.all_target and not picture.concepts:
        return {DOMAIN: plan.audit.target}
    return picture.concepts


def counted(plan: AuditPlan, pictures: Sequence[Picture]) -> list[int]:
    """The places of the pictures that count: those that ask for another erased concept do not."""
    others = set(plan.audit.also_erased) - {plan.audit.target}
    return [place for place, picture in enumerate(pictures) if not others & set(picture.concepts.values())]


def none_of(plan: AuditPlan) -> str | None:
    """The judge's label of a picture that shows no concept; ``None`` if it has none such."""
    judge = next(metric for metric in plan.metrics if metric.name == plan.judge)
    knows = isinstance(judge, ConceptClassifier) and embedded.NONE in judge.domains[plan.domain].names
    return embedded.NONE if knows else None


def target_places(plan: AuditPlan, pictures: Sequence[Picture]) -> list[int]:
    """The places of the pictures that ask for the target, and count."""
    return [p for p in counted(plan, pictures) if concepts_of(plan, pictures[p]).get(plan.domain) == plan.audit.target]


def kept_places(plan: AuditPlan, pictures: Sequence[Picture]) -> list[int]:
    """The places of the other pictures that count."""
    return [p for p in counted(plan, pictures) if concepts_of(plan, pictures[p]).get(plan.domain) != plan.audit.target]


def prompts_of(pictures: Sequence[Picture], places: Sequence[int]) -> list[str] | None:
    """The prompt of each picture where prompts have several, of one row or of many: those are not independent."""
    texts = [pictures[p].prompt for p in places]
    return texts if len(set(texts)) < len(texts) else None
