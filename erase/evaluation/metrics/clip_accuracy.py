"""CLIP accuracy as Concept Ablation has it: does a picture fit the target better than the anchor?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from PIL import Image
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.diffusion.prompts import names
from erase.errors import UserError
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.protocols import Asked, Columns


@dataclass(frozen=True, config=STRICT)
class ClipAccuracy(UsesClip):
    """P(cos(picture, target) > cos(picture, anchor)) (Kumari et al. 2023, "Ablating concepts", section 4.1).

    The share of images for which it holds is the accuracy: high before, low after. An exact tie does not count.
    """

    name: Literal["clip_accuracy"] = "clip_accuracy"
    target: str = ""
    """prompt that names the concept to be erased, in an audit its `target`: `grumpy cat`"""
    anchor: str = ""
    """prompt that names what should be shown in its place: `cat`"""

    @model_validator(mode="after")
    def _two(self) -> ClipAccuracy:
        if not self.target.strip() or not self.anchor.strip() or self.target == self.anchor:
            raise ValueError("target and anchor must be two prompts that differ")
        return self

    def check_target(self, key: str, concept: str) -> None:
        """Refuses a target prompt that does not name the audit's concept; ``key`` is the metric's in the settings."""
        if not names(self.target, [concept]):
            raise UserError(
                f"{key}.target: found {self.target!r}, which does not name the audit's target {concept!r}; give "
                f"{key}.target and {key}.anchor prompts of it, or leave clip_accuracy out"
            )

    @cached_property
    def _both(self) -> Tensor:
        return self.clip.read([self.target, self.anchor])

    def identity(self) -> dict[str, Any]:
        """The model and the two prompts."""
        return {"metric": self.name, **self.clip.identity(), "target": self.target, "anchor": self.anchor}

    def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Asked]) -> Columns:
        """``target_over_anchor``, and by how much: ``target_over_anchor_margin``, 100 x the cosines' difference."""
        target, anchor = (self.clip.embed(images) @ self._both.T).T
        margins = (100 * (target - anchor)).tolist()
        return {"target_over_anchor": [margin > 0 for margin in margins], "target_over_anchor_margin": margins}
