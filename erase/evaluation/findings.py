"""What an audit found, as `results.json` has it: from the scores of each picture to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from erase import embedded
from erase.evaluation.audit_settings import AuditPlan, uses_shapes
from erase.evaluation.effects import SEED, concept_measures, effect, effects, measures
from erase.evaluation.intervals import bootstrap_mean
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.collateral import collateral_map, nearest_concepts, with_listed
from erase.evaluation.metrics.nudity_counts import count_as_peers, count_nudity
from erase.evaluation.metrics.store import KEYS, ScoreTable
from erase.evaluation.scores import Judged, per_concept, summarize
from erase.generation.folder import ImageFolder, Picture

SLOT = "{concept}"
SEEN = {"concept_classifier": "seen/", "imagenet_classifier": "seen/", "zero_shot": "zero_shot/"}
"""The judges' columns, before the domain."""
Tables = Mapping[str, ScoreTable]
"""Scores by their metric's name."""


@dataclass(frozen=True)
class Side:
    """One model's pictures and their scores."""

    folder: ImageFolder
    tables: Tables

    def judged(self, judge: str) -> list[Judged]:
        """Each picture as the judge and the CLIP score have it."""
        prefix = SEEN[judge]
        seen = {
            c.removeprefix(prefix): values for c, values in self.tables[judge].columns.items() if c.startswith(prefix)
        }
        clips = self.tables["clip_score"].column("clip_score")
        return [
            Judged(
                {domain: concept for domain, concept in picture.concepts.items() if domain in seen},
                {domain: values[place] for domain, values in seen.items()},
                clips[place],
            )
            for place, picture in enumerate(self.folder.pictures)
        ]

    def describe(self, name: str) -> dict[str, Any]:
        """The model, as the folder's header has it."""
        header = self.folder.header
        model = {"model": name, "revision": header["model"]["revision"], "hash": header["model"]["hash"]}
        return model | ({"lora": header["lora"]} if header["lora"] else {})


def counted(plan: AuditPlan, pictures: Sequence[Picture]) -> list[int]:
    """The places of the pictures that count: those that ask for another erased concept do not."""
    others = set(plan.audit.also_erased) - {plan.audit.target}
    return [place for place, picture in enumerate(pictures) if not others & set(picture.concepts.values())]


def findings(plan: AuditPlan, base: Side, erased: Side) -> dict[str, Any]:
    """Scores of both sides, the effect on each, and how it was all made."""
    audit, target, domain = plan.audit, plan.audit.target, plan.domain
    pictures = base.folder.pictures
    places = counted(plan, pictures)
    before, after = ([side.judged(plan.judge)[place] for place in places] for side in (base, erased))
    domains = list(dict.fromkeys(d for judged in before for d in judged.asked))
    prompts = [pictures[place].case_number for place in places] if audit.images_per_prompt > 1 else None
    asked = {d: list(dict.fromkeys(j.asked[d] for j in before if d in j.asked)) for d in domains}

    def side(of: Side, judged: list[Judged], name: str) -> dict[str, Any]:
        scores = summarize(judged, target, domain, embedded.NONE)
        return of.describe(name) | {"scores": scores, "concepts": per_concept(judged)}

    return {
        "target": target,
        "domain": domain,
        "also_erased": list(audit.also_erased),
        "base": side(base, before, audit.base),
        "erased": side(erased, after, audit.erased),
        "effects": {
            "scores": effects(measures(target, domain, domains, embedded.NONE), before, after, prompts),
            "concepts": effects(concept_measures(asked), before, after, prompts),
        },
        **conditions(plan, base, erased),
    }


def conditions(plan: AuditPlan, base: Side, erased: Side) -> dict[str, Any]:
    """Prompts, sampling and the identity of every measure."""
    header = base.folder.header
    sampling = dict(header["sampling"])
    return {
        "prompts": {
            "source": header["prompts"]["source"],
            "count": len(base.folder.pictures),
            "hash": header["prompts"]["hash"],
            "images_per_prompt": plan.audit.images_per_prompt,
            "evaluation_seed": plan.audit.seed,
            "seeds": "each picture's own is in images/base/manifest.jsonl and images/erased/manifest.jsonl",
        },
        "sampling": {"steps": sampling.pop("num_inference_steps"), **sampling},
        "judge": plan.judge,
        "metrics": {name: table.identity for name, table in {**base.tables, **erased.tables}.items()},
    }


def collateral(plan: AuditPlan, base: Side, erased: Side) -> list[dict[str, Any]]:
    """The target's nearest concepts and those asked for by hand: kept or lost, on prompts without the target."""
    audit, pictures = plan.audit, base.folder.pictures
    places = kept_places(plan, pictures)
    before, after = base.judged(plan.judge), erased.judged(plan.judge)
    members = {c: d for p in places for d, c in before[p].asked.items()}
    peers = [concept for concept, domain in members.items() if domain == plan.domain] or list(members)
    clip = next(metric for metric in plan.metrics if isinstance(metric, UsesClip)).clip
    near = nearest_concepts(audit.target, peers, read_concepts(plan, clip.read), audit.nearest, SLOT) if peers else []
    neighbours = with_listed(near, audit.neighbours, list(members))

    def seen(side: Sequence[Judged], concept: str) -> list[bool]:
        domain = members[concept]
        return [side[p].seen[domain] == concept for p in places if side[p].asked.get(domain) == concept]

    shown = [[seen(side, n.concept) for n in neighbours] for side in (before, after)]
    names = [n.concept for n in neighbours]
    prompts = None
    if audit.images_per_prompt > 1:
        numbers = {c: [pictures[p].case_number for p in places if before[p].asked.get(members[c]) == c] for c in names}
        prompts = numbers
    then, now = (dict(zip(names, side, strict=True)) for side in shown)
    return [fate.as_dict() for fate in collateral_map(audit.target, neighbours, then, now, prompts)]


def read_concepts(plan: AuditPlan, read: Callable[[Sequence[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    """Text features of concepts: in words that Shapes World knows, or as a photo of each."""

    def prompt(concept: str) -> str:
        return embedded.VOCABULARY.concept_prompt(concept) if uses_shapes(plan.audit) else f"a photo of {concept}"

    return lambda concepts: read([prompt(concept) for concept in concepts])


def other_scores(plan: AuditPlan, base: Side, erased: Side) -> dict[str, Any]:
    """The other metrics of single pictures: each column of numbers, on the target's pictures and on the rest."""
    split = {"erased": target_places(plan, base.folder.pictures), "kept": kept_places(plan, base.folder.pictures)}
    found: dict[str, Any] = {}
    for name in base.tables:
        if name in (*SEEN, "clip_score", "nudity"):
            continue
        for column, values in base.tables[name].columns.items():
            if column not in KEYS and all(isinstance(value, bool | int | float) for value in values):
                now, is_share = erased.tables[name].column(column), all(isinstance(value, bool) for value in values)
                found[column] = {
                    side: effect([values[p] for p in of], [now[p] for p in of], is_share)
                    for side, of in split.items()
                    if of
                } | {"metric": name}
    return found


def target_places(plan: AuditPlan, pictures: Sequence[Picture]) -> list[int]:
    """The places of the pictures that ask for the target, and count."""
    return [p for p in counted(plan, pictures) if pictures[p].concepts.get(plan.domain) == plan.audit.target]


def kept_places(plan: AuditPlan, pictures: Sequence[Picture]) -> list[int]:
    """The places of the other pictures that count."""
    return [p for p in counted(plan, pictures) if pictures[p].concepts.get(plan.domain) != plan.audit.target]


def moved(plan: AuditPlan, pictures: Sequence[Picture], pairs: Tables) -> dict[str, Any]:
    """How far pictures moved from before to after: the mean of each distance over the target's and over the rest."""
    split = {"erased": target_places(plan, pictures), "kept": kept_places(plan, pictures)}
    columns = [(name, c, v) for name, table in pairs.items() for c, v in table.columns.items() if c not in KEYS]
    return {
        column: {
            side: bootstrap_mean([values[p] for p in of], SEED).as_dict() for side, of in split.items() if len(of) > 1
        }
        | {"metric": name}
        for name, column, values in columns
    }


def nudity(base: Tables, erased: Tables) -> dict[str, Any] | None:
    """Detections before and after, by threshold and as each peer counts; ``None`` if they were not looked for."""
    if "nudity" not in base:
        return None
    boxes = {"base": base["nudity"].column("boxes"), "erased": erased["nudity"].column("boxes")}
    return {side: {"counts": count_nudity(b), "as_peers": count_as_peers(b)} for side, b in boxes.items()}
