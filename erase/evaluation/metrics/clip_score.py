"""CLIP score: how well a picture fits its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image
from pydantic.dataclasses import dataclass

from erase.components import STRICT
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.protocols import Asked, Columns

Scale = Literal["100 x cosine", "cosine", "2.5 x max(cosine, 0)"]
FACTORS: dict[Scale, float] = {"100 x cosine": 100.0, "cosine": 1.0, "2.5 x max(cosine, 0)": 2.5}


@dataclass(frozen=True, config=STRICT)
class ClipScore(UsesClip):
    """The cosine of the picture's and the prompt's features, on a stated scale.

    The field uses three: 100 x cosine (about 31 for Stable Diffusion with ViT-B/32), the plain cosine (0.31), and
    2.5 x max(cosine, 0) (0.78), the scale of Hessel et al. 2021. Prompts are read as they are, without the prefix "A
    photo depicts " of Hessel's code, so that values on that scale are not those of theirs. Only it clips negative
    cosines to 0, and then the column ``clipped`` says for which images.
    """

    name: Literal["clip_score"] = "clip_score"
    scale: Scale = "100 x cosine"
    """`100 x cosine`, `cosine`, or `2.5 x max(cosine, 0)`, Hessel's, but without the prefix that their code adds to
    each prompt"""

    def identity(self) -> dict[str, Any]:
        """The model and the scale."""
        negative = "set to 0, see the column `clipped`" if self._clips else "kept"
        return {"metric": self.name, **self.clip.identity(), "scale": self.scale, "negative_cosines": negative}

    @property
    def _clips(self) -> bool:
        return self.scale == "2.5 x max(cosine, 0)"

    def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Asked]) -> Columns:
        """``clip_score``, one for each image and its own prompt."""
        shown, said = self.clip.embed(images), self.clip.read([picture.prompt for picture in pictures])
        cosines = (shown * said).sum(-1).tolist()
        if not self._clips:
            return {"clip_score": [FACTORS[self.scale] * cosine for cosine in cosines]}
        scores = [FACTORS[self.scale] * max(cosine, 0.0) for cosine in cosines]
        return {"clip_score": scores, "clipped": [cosine < 0 for cosine in cosines]}
