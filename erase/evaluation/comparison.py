"""One target, before and after: the same prompts and seeds through the base and the erased model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from erase import embedded
from erase.diffusion.pipelines import load_pipeline
from erase.evaluation.clip_score import ClipScore
from erase.evaluation.concept_classifier import ConceptClassifier
from erase.evaluation.report import Pair
from erase.evaluation.scores import Judged, per_concept, summarize
from erase.generation.sampling import SamplingSettings, Shot, generate
from erase.provenance import hash_folder, hash_json
from erase.randomness import derive
from erase.vocabulary import Caption


@dataclass(frozen=True)
class Judges:
    """What looks at the pictures, and where it came from."""

    classifier: ConceptClassifier
    clip: ClipScore
    identity: dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """A model's pictures, as the judges saw them."""

    name: str
    hash: str
    images: list[Image.Image]
    judged: list[Judged]


def embedded_judges() -> Judges:
    """The judges that come with Shapes World."""
    classifier, clip = embedded.WEIGHTS / "classifier", embedded.WEIGHTS / "clip"
    identity = {
        "classifier": {"model": "shapes/classifier", "hash": hash_folder(classifier)},
        "clip": {"model": "shapes/clip", "hash": hash_folder(clip), "scale": "100 x cosine"},
    }
    return Judges(ConceptClassifier(classifier), ClipScore(f"local-dir:{clip}"), identity)


@dataclass(frozen=True)
class Exam:
    """The pictures that every model is asked for, how they are made, and who judges them."""

    captions: list[Caption]
    shots: list[Shot]
    sampling: SamplingSettings
    judges: Judges
    seed: int

    def sit(self, folder: Path, name: str) -> Scored:
        """Generates the pictures with the pipeline of a folder and has them judged."""
        images = generate(load_pipeline(folder).to(sampling_device()), self.shots, self.sampling, f"pictures of {name}")
        fits = self.judges.clip(images, [shot.prompt for shot in self.shots])
        seen = self.judges.classifier(images)
        judged = [Judged(c.concepts, s, f) for c, s, f in zip(self.captions, seen, fits, strict=True)]
        return Scored(name, hash_folder(folder), images, judged)

    def describe(self) -> dict[str, Any]:
        """Prompts, seeds, sampling and judges, as ``results.json`` has them."""
        return {
            "prompts": {
                "count": len(self.shots),
                "hash": hash_json([shot.prompt for shot in self.shots]),
                "evaluation_seed": self.seed,
                "seeds": [shot.seed for shot in self.shots],
            },
            "sampling": asdict(self.sampling) | {"device": sampling_device()},
            "metrics": self.judges.identity,
        }


def sampling_device() -> str:
    """Where pictures are made: the first GPU, else the CPU; their noise is always drawn on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def embedded_exam(copies: int, seed: int, sampling: SamplingSettings) -> Exam:
    """Every full caption of Shapes World, ``copies`` times, each from a seed that training never draws."""
    captions = embedded.VOCABULARY.captions([embedded.FULL_TEMPLATE]) * copies
    shots = [Shot(c.text, derive(seed, "evaluation", index) % 10**9) for index, c in enumerate(captions)]
    return Exam(captions, shots, sampling, embedded_judges(), seed)


def compare(exam: Exam, base: Scored, erased: Scored, target: str) -> dict[str, Any]:
    """The scores of both models for a target, with everything needed to make them again."""
    domain = embedded.VOCABULARY.domain_of(target)

    def side(scored: Scored) -> dict[str, Any]:
        scores = summarize(scored.judged, target, domain, embedded.NONE)
        return {"model": scored.name, "hash": scored.hash, "scores": scores, "concepts": per_concept(scored.judged)}

    return {"target": target, "domain": domain, "base": side(base), "erased": side(erased), **exam.describe()}


def make_pairs(exam: Exam, base: Scored, erased: Scored) -> list[Pair]:
    """Each prompt's picture before and after, for the report."""
    return [
        Pair(shot.prompt, shot.seed, then.asked, before, after, then.seen, now.seen)
        for shot, then, now, before, after in zip(
            exam.shots, base.judged, erased.judged, base.images, erased.images, strict=True
        )
    ]
