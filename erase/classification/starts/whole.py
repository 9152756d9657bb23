"""Starts that leave the weights as they are, or draw all of them anew."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass
from torch import nn

from erase.classification.material import Material
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class Trained:
    """The weights that are to forget, as they are."""

    name: Literal["trained"] = "trained"

    def __call__(self, model: nn.Module, material: Material) -> None:
        """Nothing."""


@dataclass(frozen=True, config=STRICT)
class Scratch:
    """All weights and running statistics as a network that has seen nothing has them: what retraining starts from."""

    name: Literal["scratch"] = "scratch"

    def __call__(self, model: nn.Module, material: Material) -> None:
        """In place; the weights follow from the run's seed."""
        model.load_state_dict(material.fresh("fresh").state_dict())
