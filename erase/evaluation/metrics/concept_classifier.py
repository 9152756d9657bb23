"""Which concept a classifier sees in a picture, for each domain that it judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.evaluation.metrics.classifier_model import load_classifier
from erase.evaluation.metrics.imagenet import IMAGENETTE, WEIGHTS, load_resnet50
from erase.evaluation.metrics.labels import (
    Domain,
    Mapped,
    check_asked,
    check_domains,
    map_labels,
    read_labels,
    split_by_prefix,
)
from erase.evaluation.metrics.protocols import Asked, Columns
from erase.provenance import hash_json


class Classifier(Protocol):
    """What gives a number to each of its labels."""

    labels: tuple[str, ...]

    def logits(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, labels]``."""

    def identity(self) -> dict[str, Any]:
        """Which model this is."""


def judge(logits: Tensor, pictures: Sequence[Asked], domains: Mapping[str, Domain]) -> Columns:
    """For each domain the likeliest label's concept, its confidence, and the rank of what was asked for.

    ``seen/<domain>`` is the concept that the likeliest label stands for, else that label itself; the share of images
    for which it is what was asked is top-1 accuracy. ``confidence/<domain>`` is that label's softmax share within the
    domain, 0 to 1. ``rank/<domain>`` is the place, from 1, of the best label of the concept asked for (none where the
    prompt leaves the domain open): an image counts for top-k accuracy if it is at most k.
    """
    columns: Columns = {}
    for domain, part in domains.items():
        shares = logits[:, list(part.indices)].double().softmax(-1)
        order = shares.argsort(dim=-1, descending=True, stable=True)
        columns[f"seen/{domain}"] = [part.names[row[0]] for row in order.tolist()]
        columns[f"confidence/{domain}"] = shares.max(-1).values.tolist()
        asked = [picture.concepts.get(domain) for picture in pictures]
        columns[f"rank/{domain}"] = [
            None if concept is None else 1 + [part.names[index] for index in row].index(concept)
            for concept, row in zip(asked, order.tolist(), strict=True)
        ]
    return columns


class _Judging:
    """What both classifiers share: columns from logits, and an identity with the mapping's hash."""

    name: str
    classifier: Classifier
    domains: dict[str, Domain]

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses prompts none of which asks for a domain of its, or one of which asks for what it does not know."""
        check_domains(pictures, self.domains, self.name)
        check_asked(pictures, {domain: part.concepts for domain, part in self.domains.items()}, self.name)

    def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Asked]) -> Columns:
        """``seen/<domain>``, ``confidence/<domain>`` and ``rank/<domain>``."""
        check_asked(pictures, {domain: part.concepts for domain, part in self.domains.items()}, self.name)
        return judge(self.classifier.logits(images), pictures, self.domains)

    def identity(self) -> dict[str, Any]:
        """The model, its domains, and what its labels stand for."""
        names = {domain: dict(zip(part.indices, part.names, strict=True)) for domain, part in self.domains.items()}
        mapping = {"domains": sorted(self.domains), "labels_sha256": hash_json(names), "rule": "the likeliest label"}
        return {"metric": self.name, **self.classifier.identity(), **mapping}


@dataclass(frozen=True, config=STRICT)
class ConceptClassifier(_Judging):
    """A transformers image classification model (timm's on the Hub are some too).

    Labels such as `object/star` name their domain. For others say either `domain`, and each label is a concept of it,
    or `labels` (or `labels_file`), which labels stand for which concept.
    """

    name: Literal["concept_classifier"] = "concept_classifier"
    model: str = "shapes"
    """`shapes`, a folder, or a Hub id; safetensors only"""
    revision: str | None = None
    """commit, tag or branch of a Hub id"""
    domain: str | None = None
    """domain of labels that have no `domain/` before them"""
    labels: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None
    """domain to concept to labels: `{object: {garbage truck: [garbage truck, dustcart]}}`"""
    labels_file: Path | None = None
    """the same in a YAML or JSON file"""

    @model_validator(mode="after")
    def _one_way(self) -> ConceptClassifier:
        if sum(way is not None for way in (self.domain, self.labels, self.labels_file)) > 1:
            raise ValueError("give one of domain, labels and labels_file")
        return self

    @property
    def classifier(self) -> Classifier:  # type: ignore[override]
        """The model, loaded on first use."""
        return load_classifier(self.model, self.revision)

    @cached_property
    def domains(self) -> dict[str, Domain]:  # type: ignore[override]
        """Domain to its labels; the mapping is checked against the model's."""
        mapping: Mapped | None = read_labels(self.labels_file) if self.labels_file else self.labels
        if mapping is not None:
            return map_labels(self.classifier.labels, mapping)
        return split_by_prefix(self.classifier.labels, self.domain or "label")


@dataclass(frozen=True, config=STRICT)
class ImagenetClassifier(_Judging):
    """torchvision's ResNet-50 with the V2 weights, as the field judges Imagenette: top-1 of a thousand labels."""

    name: Literal["imagenet_classifier"] = "imagenet_classifier"
    model: str = WEIGHTS
    """Hub id or .safetensors file of torchvision's ResNet-50"""
    labels: Mapping[str, Mapping[str, tuple[str, ...]]] = Field(
        default_factory=lambda: {"class": {name: (name,) for name in IMAGENETTE.values()}}
    )
    """domain to concept to labels; the default is Imagenette's ten classes in the domain `class`"""

    @property
    def classifier(self) -> Classifier:  # type: ignore[override]
        """The model, loaded on first use."""
        return load_resnet50(self.model)

    @cached_property
    def domains(self) -> dict[str, Domain]:  # type: ignore[override]
        """Domain to all thousand labels."""
        return map_labels(self.classifier.labels, self.labels)
