"""Forget and retain losses of the classifier path; both tables are closed."""

from __future__ import annotations

from erase.classification.losses.adaptive_ascent import AdaptiveAscent
from erase.classification.losses.boundary import BoundaryExpand, BoundaryShrink
from erase.classification.losses.gradient_ascent import GradientAscent
from erase.classification.losses.learning import CrossEntropy, L1Sparse
from erase.classification.losses.random_label import RandomLabel
from erase.classification.losses.teachers import BadTeacher, Distillation, TeacherDivergence
from erase.classification.losses.uniform import Uniform

ForgetLoss = (
    GradientAscent
    | AdaptiveAscent
    | RandomLabel
    | Uniform
    | BoundaryShrink
    | BoundaryExpand
    | BadTeacher
    | TeacherDivergence
)
RetainLoss = CrossEntropy | L1Sparse | Distillation
FORGET_LOSSES: dict[str, type[ForgetLoss]] = {
    "gradient_ascent": GradientAscent,
    "adaptive_ascent": AdaptiveAscent,
    "random_label": RandomLabel,
    "uniform": Uniform,
    "boundary_shrink": BoundaryShrink,
    "boundary_expand": BoundaryExpand,
    "bad_teacher": BadTeacher,
    "teacher_divergence": TeacherDivergence,
}
RETAIN_LOSSES: dict[str, type[RetainLoss]] = {
    "cross_entropy": CrossEntropy,
    "l1_sparse": L1Sparse,
    "distillation": Distillation,
}

__all__ = [
    "FORGET_LOSSES",
    "RETAIN_LOSSES",
    "AdaptiveAscent",
    "BadTeacher",
    "BoundaryExpand",
    "BoundaryShrink",
    "CrossEntropy",
    "Distillation",
    "ForgetLoss",
    "GradientAscent",
    "L1Sparse",
    "RandomLabel",
    "RetainLoss",
    "TeacherDivergence",
    "Uniform",
]
