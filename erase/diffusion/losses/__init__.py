"""Forget and retain losses of the diffusion path; both tables are closed."""

from __future__ import annotations

from erase.diffusion.losses.anchor_redirection import AnchorRedirection
from erase.diffusion.losses.denoising import Denoising
from erase.diffusion.losses.gradient_ascent import GradientAscent
from erase.diffusion.losses.negative_guidance import NegativeGuidance
from erase.diffusion.losses.teacher_distillation import TeacherDistillation

ForgetLoss = NegativeGuidance | AnchorRedirection | GradientAscent
RetainLoss = TeacherDistillation | Denoising
FORGET_LOSSES: dict[str, type[ForgetLoss]] = {
    "negative_guidance": NegativeGuidance,
    "anchor_redirection": AnchorRedirection,
    "gradient_ascent": GradientAscent,
}
RETAIN_LOSSES: dict[str, type[RetainLoss]] = {
    "teacher_distillation": TeacherDistillation,
    "denoising": Denoising,
}

__all__ = [
    "FORGET_LOSSES",
    "RETAIN_LOSSES",
    "AnchorRedirection",
    "Denoising",
    "ForgetLoss",
    "GradientAscent",
    "NegativeGuidance",
    "RetainLoss",
    "TeacherDistillation",
]
