"""What was forgotten and what was kept: UA, IRA and CRA as UnlearnCanvas defines them (Zhang et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erase.errors import UserError


@dataclass(frozen=True)
class Judged:
    """One picture: what its prompt says, what the classifier sees, how well the prompt fits."""

    asked: Mapping[str, str]
    """Domain to concept, as the prompt has it."""
    seen: Mapping[str, str]
    """Domain to label, as the classifier has it."""
    clip: float
    """CLIP score, 100 x cosine."""


def share(pictures: Sequence[Judged], holds: Callable[[Judged], bool], what: str) -> float:
    """The share, 0 to 1, of pictures for which ``holds``; an empty set is an error."""
    if not pictures:
        raise UserError(f"evaluation: no pictures to measure {what} on; add prompts")
    return sum(map(holds, pictures)) / len(pictures)


def accuracy(pictures: Sequence[Judged], domains: Sequence[str], what: str) -> float:
    """The mean over the domains of the share of pictures in which the classifier sees what was asked for.

    A picture whose prompt leaves a domain open does not count there.
    """
    if not domains:
        raise UserError(f"evaluation: no domain to measure {what} in; the prompts ask for none beside the target's")

    def right(domain: str) -> float:
        asking = [picture for picture in pictures if domain in picture.asked]
        return share(asking, lambda picture: picture.seen[domain] == picture.asked[domain], what)

    return sum(map(right, domains)) / len(domains)


def split(pictures: Sequence[Judged], target: str, domain: str) -> tuple[list[Judged], list[Judged], list[str]]:
    """The pictures that ask for the target, all others, and the domains beside the target's."""
    erased = [p for p in pictures if p.asked.get(domain) == target]
    kept = [p for p in pictures if p.asked.get(domain) != target]
    others = [d for d in dict.fromkeys(d for p in pictures for d in p.asked) if d != domain]
    return erased, kept, others


def summarize(pictures: Sequence[Judged], target: str, domain: str, none: str | None) -> dict[str, Any]:
    """The scores of one model for one target, all shares 0 to 1 except CLIP score.

    UA is the share of the target's pictures that no longer show it; IRA the accuracy in the target's domain
    on all other prompts; CRA the accuracy in the other domains, on kept and on erased prompts: its mean over
    them, and under ``across`` each domain's own. :mod:`erase.evaluation.effects` says how sure they are. Where
    no prompt asks for another domain, or for another concept, there is no CRA, no IRA: ``None``. So it is with the
    shares of pictures that show nothing, if the judge has no label ``none`` for them.
    """
    erased, kept, others = split(pictures, target, domain)
    across = {d: {"kept": _accuracy_if_asked(kept, d), "erased": _accuracy_if_asked(erased, d)} for d in others}
    return {
        "UA": share(erased, lambda p: p.seen[domain] != target, "UA"),
        "IRA": _accuracy_if_asked(kept, domain),
        "CRA_kept": _mean(shares["kept"] for shares in across.values()),
        "CRA_erased": _mean(shares["erased"] for shares in across.values()),
        "across": across,
        "none_erased": share(erased, lambda p: p.seen[domain] == none, "none") if none else None,
        "none_kept": share(kept, lambda p: p.seen[domain] == none, "none") if kept and none else None,
        "clip_erased": sum(p.clip for p in erased) / len(erased),
        "clip_kept": sum(p.clip for p in kept) / len(kept) if kept else None,
        "images_erased": len(erased),
        "images_kept": len(kept),
    }


def _accuracy_if_asked(pictures: Sequence[Judged], domain: str) -> float | None:
    """The accuracy in a domain; ``None`` if no prompt asks for a concept of it."""
    asked = any(domain in picture.asked for picture in pictures)
    return accuracy(pictures, [domain], "CRA") if asked else None


def _mean(shares: Iterable[float | None]) -> float | None:
    """Of those that there are; ``None`` if there are none."""
    found = [share for share in shares if share is not None]
    return sum(found) / len(found) if found else None


def per_concept(pictures: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Each concept's own accuracy and CLIP score, over the pictures whose prompt names it."""
    table: dict[str, dict[str, Any]] = {}
    for domain in dict.fromkeys(d for p in pictures for d in p.asked):
        for concept in dict.fromkeys(p.asked[domain] for p in pictures if domain in p.asked):
            of = [p for p in pictures if p.asked.get(domain) == concept]
            table[concept] = {
                "domain": domain,
                "accuracy": accuracy(of, [domain], concept),
                "clip": sum(p.clip for p in of) / len(of),
                "images": len(of),
            }
    return table
