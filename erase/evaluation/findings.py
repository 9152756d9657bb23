"""What an audit found, as `results.json` has it: from the scores of each picture to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from erase import embedded
from erase.evaluation.audit_settings import AuditPlan, uses_shapes
from erase.evaluation.effects import concept_measures, effects, measures
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.collateral import collateral_map, nearest_concepts, with_listed
from erase.evaluation.scores import Judged, per_concept, summarize
from erase.evaluation.sides import Side, counted, kept_places, none_of, prompts_of
from erase.generation.prompts import gives_seeds

SLOT = "{concept}"


def findings(plan: AuditPlan, base: Side, erased: Side) -> dict[str, Any]:
    """Scores of both sides, the effect on each, and how it was all made."""
    audit, target, domain = plan.audit, plan.audit.target, plan.domain
    pictures = base.folder.pictures
    places = counted(plan, pictures)
    before, after = ([judged[place] for place in places] for judged in (base.judged(plan), erased.judged(plan)))
    domains = list(dict.fromkeys(d for judged in before for d in judged.asked))
    prompts = prompts_of(pictures, places)
    asked = {d: list(dict.fromkeys(j.asked[d] for j in before if d in j.asked)) for d in domains}

    def side(of: Side, judged: list[Judged], name: str) -> dict[str, Any]:
        scores = summarize(judged, target, domain, none_of(plan))
        return of.describe(name) | {"scores": scores, "concepts": per_concept(judged)}

    return {
        "target": target,
        "domain": domain,
        "also_erased": list(audit.also_erased),
        "base": side(base, before, audit.base),
        "erased": side(erased, after, audit.erased),
        "effects": {
            "scores": effects(measures(target, domain, domains, none_of(plan)), before, after, prompts),
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
            "evaluation_seed": plan.audit.seed if gives_seeds(plan.audit.seed, plan.rows) else None,
            "seeds": "each picture's own, in manifest.jsonl beside the pictures",
        },
        "sampling": {"steps": sampling.pop("num_inference_steps"), **sampling},
        "judge": plan.judge,
        "metrics": {name: table.identity for name, table in {**base.tables, **erased.tables}.items()},
    }


def collateral(plan: AuditPlan, base: Side, erased: Side) -> list[dict[str, Any]]:
    """The target's nearest concepts and those asked for by hand: kept or lost, on prompts without the target."""
    audit, pictures = plan.audit, base.folder.pictures
    places = kept_places(plan, pictures)
    before, after = base.judged(plan), erased.judged(plan)
    members = {c: d for p in places for d, c in before[p].asked.items()}
    peers = [concept for concept, domain in members.items() if domain == plan.domain] or list(members)
    clip = next(metric for metric in plan.metrics if isinstance(metric, UsesClip)).clip
    wanted = bool(peers) and audit.nearest > 0
    near = nearest_concepts(audit.target, peers, read_concepts(plan, clip.read), audit.nearest, SLOT) if wanted else []
    neighbours = with_listed(near, audit.neighbours, list(members))

    def seen(side: Sequence[Judged], concept: str) -> list[bool]:
        domain = members[concept]
        return [side[p].seen[domain] == concept for p in places if side[p].asked.get(domain) == concept]

    shown = [[seen(side, n.concept) for n in neighbours] for side in (before, after)]
    names = [n.concept for n in neighbours]
    texts = prompts_of(pictures, places)
    prompts = None
    if texts is not None:
        asking = list(zip((before[p].asked for p in places), texts, strict=True))
        prompts = {c: [text for asked, text in asking if asked.get(members[c]) == c] for c in names}
    then, now = (dict(zip(names, side, strict=True)) for side in shown)
    return [fate.as_dict() for fate in collateral_map(audit.target, neighbours, then, now, prompts)]


def read_concepts(plan: AuditPlan, read: Callable[[Sequence[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    """Text features of concepts: in words that Shapes World knows, or as a photo of each."""

    def prompt(concept: str) -> str:
        return embedded.VOCABULARY.concept_prompt(concept) if uses_shapes(plan.audit) else f"a photo of {concept}"

    return lambda concepts: read([prompt(concept) for concept in concepts])
