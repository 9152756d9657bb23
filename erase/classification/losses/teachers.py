"""Losses against another network's answers: one that knows nothing, or the one that knew too much."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.classification.images import Batch
from erase.classification.losses.base import Loss, Network, asked_teacher, divergence, found_target, label_loss
from erase.components import STRICT

Temperature = Annotated[float, Field(gt=0, description="T, which softens both networks' answers")]


class Taught(Loss):
    """A loss whose target is the teacher's logits."""

    def target(self, teacher: Network | None, model: Network, batch: Batch) -> Tensor:
        """``[b, k]``"""
        return asked_teacher(teacher)(batch.images)


@dataclass(frozen=True, config=STRICT)
class BadTeacher(Taught):
    """T^2 KL_T(random network || student): Bad Teacher (Chundawat et al., AAAI 2023), the incompetent one's part."""

    name: Literal["bad_teacher"] = "bad_teacher"
    temperature: Temperature = 1.0
    needs_random: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        return divergence(found_target(batch), logits, self.temperature)


@dataclass(frozen=True, config=STRICT)
class TeacherDivergence(Taught):
    """-T^2 KL_T(original || student): SCRUB's max step (Kurmanji et al., NeurIPS 2023, eq. 3).

    Its gradient is 0 where the student is the original: a retain step, or another start, must come first.
    """

    name: Literal["teacher_divergence"] = "teacher_divergence"
    temperature: Temperature = 4.0
    needs_original: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at most 0."""
        return -divergence(found_target(batch), logits, self.temperature)


@dataclass(frozen=True, config=STRICT)
class Distillation(Taught):
    """gamma CE + alpha T^2 KL_T(original || student): SCRUB's min step; with gamma 0, alpha 1, T 1 Bad Teacher's."""

    name: Literal["distillation"] = "distillation"
    gamma: Annotated[float, Field(ge=0, description="weight of the labels")] = 0.99
    alpha: Annotated[float, Field(ge=0, description="weight of the original's answers")] = 0.001
    temperature: Temperature = 4.0
    needs_original: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[b]``, at least 0."""
        taught = divergence(found_target(batch), logits, self.temperature)
        return self.gamma * label_loss(logits, batch.labels) + self.alpha * taught
