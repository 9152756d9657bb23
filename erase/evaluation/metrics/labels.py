"""Which of a classifier's labels stand for which concept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erase.config import read_yaml
from erase.errors import UserError, refuse
from erase.evaluation.metrics.protocols import Asked

Mapped = Mapping[str, Mapping[str, Sequence[str]]]
"""Domain to concept to its labels: ``{"object": {"garbage truck": ["garbage truck", "dustcart"]}}``."""


@dataclass(frozen=True)
class Domain:
    """A softmax over some labels of a classifier, and the concept that each stands for."""

    indices: tuple[int, ...]
    """Of its labels among the classifier's."""
    names: tuple[str, ...]
    """What each is reported as: the concept's name, or the label itself where no concept claims it."""
    concepts: frozenset[str] = field(default_factory=frozenset)
    """What may be asked for."""


def split_by_prefix(labels: Sequence[str], unnamed: str) -> dict[str, Domain]:
    """``object/star`` belongs to the domain ``object``; labels without a prefix share the domain ``unnamed``."""
    found: dict[str, list[tuple[int, str]]] = {}
    for index, label in enumerate(labels):
        domain, _, name = label.rpartition("/")
        found.setdefault(domain or unnamed, []).append((index, name))
    return {
        domain: Domain(tuple(i for i, _ in members), names := tuple(n for _, n in members), frozenset(names))
        for domain, members in found.items()
    }


def map_labels(labels: Sequence[str], mapping: Mapped) -> dict[str, Domain]:
    """Each domain of the mapping over all labels: a concept's labels are reported as the concept."""
    refuse(_wrong_labels(labels, mapping))
    found = {}
    for domain, concepts in mapping.items():
        of = {label: concept for concept, members in concepts.items() for label in members}
        names = tuple(of.get(label, label) for label in labels)
        found[domain] = Domain(tuple(range(len(labels))), names, frozenset(concepts))
    return found


def _wrong_labels(labels: Sequence[str], mapping: Mapped) -> Iterable[str]:
    known = set(labels)
    if not mapping:
        yield "labels: the mapping is empty; it needs a domain, a concept and its labels"
    for domain, concepts in mapping.items():
        owner: dict[str, str] = {}
        for concept, members in concepts.items():
            if not members:
                yield f"labels.{domain}.{concept}: names no label of the classifier"
            for label in members:
                if label not in known:
                    yield f"labels.{domain}.{concept}: the classifier has no label {label!r}; {near(label, labels)}"
                if owner.setdefault(label, concept) != concept:
                    yield f"labels.{domain}: {label!r} stands for both {owner[label]!r} and {concept!r}"
            if concept in known and concept not in members:
                yield f"labels.{domain}.{concept}: a label has that very name; list it, or rename the concept"


def near(word: str, known: Iterable[str]) -> str:
    """The words most like one that is unknown, or the first few."""
    known = list(known)
    folded = {name.casefold(): name for name in known}
    close = [folded[name] for name in difflib.get_close_matches(word.casefold(), folded, 3, 0.5)]
    close = close or [name for name in known if word.casefold() in name.casefold()][:3]
    return f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(known[:5])}, ... ({len(known)})"


def check_asked(pictures: Sequence[Asked], concepts: Mapping[str, Iterable[str]], metric: str) -> None:
    """Refuses a prompt that asks for a concept which the judge of its domain cannot see."""
    known = {domain: set(names) for domain, names in concepts.items()}
    asked = dict.fromkeys((d, c) for picture in pictures for d, c in picture.concepts.items() if d in known)
    refuse(
        f"{metric}: prompts ask for the {domain} {concept!r}, which it does not know; {near(concept, known[domain])}"
        for domain, concept in asked
        if concept not in known[domain]
    )


def check_domains(pictures: Iterable[Asked], domains: Iterable[str], metric: str) -> None:
    """Refuses a set of prompts none of which asks for anything in a domain that the judge sees."""
    known, asked = set(domains), {domain for picture in pictures for domain in picture.concepts}
    if not known & asked:
        raise UserError(
            f"{metric}: judges {', '.join(sorted(known))}, but the prompts ask for concepts in "
            f"{', '.join(sorted(asked)) or 'no domain'}; name the domain alike in the prompt set and in the metric"
        )


def read_labels(file: Path) -> Mapped:
    """A mapping in a YAML or JSON file."""
    tree = read_yaml(file, "labels_file")
    for domain, concepts in tree.items():
        whole = isinstance(concepts, dict) and all(isinstance(members, list) for members in concepts.values())
        if not whole:
            raise UserError(f"labels_file: {file}: {domain} must map each concept to a list of labels")
    return {d: {str(c): [str(label) for label in members] for c, members in tree[d].items()} for d in tree}
