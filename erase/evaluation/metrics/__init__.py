"""Metrics: what looks at images, at pairs of them, or at two sets. The tables are closed."""

from __future__ import annotations

from erase.evaluation.metrics.clip_accuracy import ClipAccuracy
from erase.evaluation.metrics.clip_score import ClipScore
from erase.evaluation.metrics.concept_classifier import ConceptClassifier, ImagenetClassifier
from erase.evaluation.metrics.frechet import FID
from erase.evaluation.metrics.kernel_distances import CMMD, KID
from erase.evaluation.metrics.lpips import Lpips
from erase.evaluation.metrics.nudity import Nudity
from erase.evaluation.metrics.perceptual import ClipDistance, PixelDistance
from erase.evaluation.metrics.zero_shot import ZeroShot

ImageMetrics = ClipScore | ZeroShot | ClipAccuracy | ConceptClassifier | ImagenetClassifier | Nudity
PairMetrics = ClipDistance | PixelDistance | Lpips
SetMetrics = FID | KID | CMMD
AnyMetric = ImageMetrics | PairMetrics | SetMetrics

IMAGE_METRICS: dict[str, type[ImageMetrics]] = {
    "clip_score": ClipScore,
    "zero_shot": ZeroShot,
    "clip_accuracy": ClipAccuracy,
    "concept_classifier": ConceptClassifier,
    "imagenet_classifier": ImagenetClassifier,
    "nudity": Nudity,
}
PAIR_METRICS: dict[str, type[PairMetrics]] = {
    "clip_distance": ClipDistance,
    "pixel_distance": PixelDistance,
    "lpips": Lpips,
}
SET_METRICS: dict[str, type[SetMetrics]] = {"fid": FID, "kid": KID, "cmmd": CMMD}
METRICS: dict[str, type[AnyMetric]] = {**IMAGE_METRICS, **PAIR_METRICS, **SET_METRICS}
"""Every metric by its ``name``."""

__all__ = [
    "CMMD",
    "FID",
    "IMAGE_METRICS",
    "KID",
    "METRICS",
    "PAIR_METRICS",
    "SET_METRICS",
    "AnyMetric",
    "ClipAccuracy",
    "ClipDistance",
    "ClipScore",
    "ConceptClassifier",
    "ImageMetrics",
    "ImagenetClassifier",
    "Lpips",
    "Nudity",
    "PairMetrics",
    "PixelDistance",
    "SetMetrics",
    "ZeroShot",
]
