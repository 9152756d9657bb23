"""The concepts a model can name: domains of words, and the sentence patterns they appear in."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class UnknownConceptError(ValueError):
    """A word that no domain of the vocabulary holds."""


@dataclass(frozen=True)
class Caption:
    """A sentence and the concept it names in each domain (absent: the sentence leaves the domain open)."""

    text: str
    concepts: Mapping[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """Domains of mutually exclusive concepts, and templates such as ``"a {color} {object}"``."""

    domains: Mapping[str, tuple[str, ...]]
    """Domain name to its concepts: ``{"object": ("circle", "star"), "color": ("red",)}``."""
    templates: tuple[str, ...]
    """Sentences with domain names in braces; the first is the fullest, and one may have no brace at all."""

    def __post_init__(self) -> None:
        words = [concept for concepts in self.domains.values() for concept in concepts]
        repeated = sorted({word for word in words if words.count(word) > 1})
        if repeated:
            raise ValueError(f"a concept belongs to one domain only; found twice: {', '.join(repeated)}")
        for template in self.templates:
            unknown = fields(template) - set(self.domains)
            if unknown:
                raise ValueError(
                    f"template {template!r} names the domain {sorted(unknown)[0]!r}; known: {', '.join(self.domains)}"
                )

    def domain_of(self, concept: str) -> str:
        """The domain that holds ``concept``; :class:`UnknownConceptError` names the known words."""
        for domain, concepts in self.domains.items():
            if concept in concepts:
                return domain
        known = "; ".join(f"{domain}: {', '.join(concepts)}" for domain, concepts in self.domains.items())
        raise UnknownConceptError(f"{concept!r} is not a concept of this model. Known: {known}")

    def captions(self, templates: Iterable[str] | None = None) -> list[Caption]:
        """Every template filled in every way, in a fixed order, without repeats."""
        filled: dict[str, Caption] = {}
        for template in self.templates if templates is None else templates:
            domains = [domain for domain in self.domains if domain in fields(template)]
            for choice in itertools.product(*(self.domains[domain] for domain in domains)):
                concepts = dict(zip(domains, choice, strict=True))
                filled.setdefault(text := template.format(**concepts), Caption(text, concepts))
        return list(filled.values())

    def captions_of(self, concept: str) -> list[Caption]:
        """The captions that name ``concept``."""
        domain = self.domain_of(concept)
        return [caption for caption in self.captions() if caption.concepts.get(domain) == concept]

    def captions_without(self, concepts: Iterable[str]) -> list[Caption]:
        """The captions that name a concept, but none of ``concepts``."""
        excluded = set(concepts)
        return [c for c in self.captions() if c.concepts and not excluded & set(c.concepts.values())]

    def neutral(self, text: str, concept: str) -> str | None:
        """The caption that says the same without ``concept``; ``None`` if the text is no caption that names it."""
        domain = self.domain_of(concept)
        for caption in self.captions_of(concept):
            rest = {name: word for name, word in caption.concepts.items() if name != domain}
            same = [template for template in self.templates if fields(template) == set(rest)]
            if caption.text == text and same:
                return same[0].format(**rest)
        return None

    def concept_prompt(self, concept: str) -> str:
        """The shortest caption that names ``concept`` and nothing else: ``"a star"``."""
        domain = self.domain_of(concept)
        alone = [template for template in self.templates if fields(template) == {domain}]
        if not alone:
            raise ValueError(f"no template names the domain {domain!r} alone; add one such as 'a {{{domain}}}'")
        return min(alone, key=len).format(**{domain: concept})


def fields(template: str) -> set[str]:
    """The names in braces of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
