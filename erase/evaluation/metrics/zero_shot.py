"""Zero-shot concept accuracy: which of a domain's concepts CLIP takes a picture for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.labels import check_asked, check_domains
from erase.evaluation.metrics.protocols import Asked, Columns
from erase.provenance import hash_json

SLOT = "{concept}"


@dataclass(frozen=True, config=STRICT)
class ZeroShot(UsesClip):
    """argmax over a domain's concepts of the cosine with the picture (Radford et al. 2021, section 3.1).

    A concept's direction is the mean of the unit features of its prompts, scaled back to length 1. The confidence is
    its softmax share among the domain's concepts, at the model's own logit scale.
    """

    name: Literal["zero_shot"] = "zero_shot"
    concepts: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """domain to its concepts, two at least: `{object: [cat, dog]}`"""
    templates: tuple[str, ...] = ("a photo of {concept}",)
    """prompts for each concept"""
    domain_templates: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """templates of a domain, in place of `templates`: `{color: ["a {concept} shape"]}`"""

    @model_validator(mode="after")
    def _complete(self) -> ZeroShot:
        if not self.concepts:
            raise ValueError("concepts must name a domain and its concepts")
        for domain, concepts in self.concepts.items():
            if len(set(concepts)) < max(2, len(concepts)):
                raise ValueError(f"concepts.{domain} needs two concepts at least, each once")
        unknown = sorted(set(self.domain_templates) - set(self.concepts))
        if unknown:
            raise ValueError(f"domain_templates.{unknown[0]}: there is no such domain in concepts")
        for templates in (self.templates, *self.domain_templates.values()):
            wrong = [template for template in templates if SLOT not in template]
            if wrong or not templates:
                raise ValueError(f"templates: {wrong[0] if wrong else 'an empty list'!r} must hold {SLOT}")
        return self

    def prompts(self, domain: str, concept: str) -> list[str]:
        """What CLIP is asked for a concept."""
        return [t.replace(SLOT, concept) for t in self.domain_templates.get(domain, self.templates)]

    @cached_property
    def directions(self) -> dict[str, Tensor]:
        """Domain to ``[concepts, width]`` unit directions."""
        found = {}
        for domain, concepts in self.concepts.items():
            means = torch.stack([self.clip.read(self.prompts(domain, concept)).mean(0) for concept in concepts])
            found[domain] = torch.nn.functional.normalize(means, dim=-1)
        return found

    def identity(self) -> dict[str, Any]:
        """The model, and a hash of every prompt it is asked."""
        asked = {d: {c: self.prompts(d, c) for c in concepts} for d, concepts in self.concepts.items()}
        kept = {"concepts": {d: list(c) for d, c in self.concepts.items()}, "prompts_sha256": hash_json(asked)}
        return {"metric": self.name, **self.clip.identity(), **kept, "logit_scale": self.clip.logit_scale}

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses prompts none of which asks for a domain of its, or one of which asks for what it does not know."""
        super().check(pictures)
        check_domains(pictures, self.concepts, self.name)
        check_asked(pictures, self.concepts, self.name)

    def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Asked]) -> Columns:
        """``zero_shot/<domain>``, the concept, and ``zero_shot_confidence/<domain>``, 0 to 1."""
        check_asked(pictures, self.concepts, self.name)
        shown, columns = self.clip.embed(images), {}
        for domain, directions in self.directions.items():
            shares, best = (self.clip.logit_scale * shown @ directions.T).softmax(-1).max(-1)
            columns[f"zero_shot/{domain}"] = [self.concepts[domain][index] for index in best.tolist()]
            columns[f"zero_shot_confidence/{domain}"] = shares.tolist()
        return columns
