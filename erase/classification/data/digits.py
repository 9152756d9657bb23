"""Scikit-learn's handwritten digits: real data that needs no download."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass

from erase.classification.data.source import Source
from erase.classification.images import Images
from erase.components import STRICT


@dataclass(frozen=True, config=STRICT)
class Digits:
    """1797 grey pictures of 8 x 8 pixels, 10 classes (UCI's optical recognition test set, Alpaydin & Kaynak 1998)."""

    name: Literal["digits"] = "digits"

    def load(self, seed: int) -> Source:
        """``[1797, 1, 8, 8]``: 0 to 16 becomes 0 to 255; the classes are called 0 to 9."""
        from sklearn.datasets import load_digits

        found = load_digits()
        pixels = torch.from_numpy(np.rint(found.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
        labels = torch.from_numpy(found.target).long()
        ids = tuple(f"digits-{place:04d}" for place in range(len(labels)))
        return Source(Images(pixels, labels, ids), None, tuple(str(name) for name in found.target_names))
