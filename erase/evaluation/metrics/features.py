"""What two sets of images are compared by: the features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.inception import WIDTH, FIDInception, resize_clean, resize_tensorflow
from erase.evaluation.metrics.loading import device, hash_weights, library, read_weights

REMEDY = (
    "its weights are pt_inception-2015-12-05-6726825d.pth (in the releases of pytorch-fid and torch-fidelity), turned "
    'into safetensors by `python -c "import torch; from safetensors.torch import save_file; '
    "save_file(torch.load('pt_inception-2015-12-05-6726825d.pth', weights_only=True), 'inception.safetensors')\"`"
)


@dataclass(frozen=True, config=STRICT)
class ClipFeatures(UsesClip):
    """The image features of an open_clip model: `shapes` offline; ViT-B/32 for CLIP-FID, ViT-L/14 at 336 for CMMD."""

    name: Literal["clip"] = "clip"
    normalize: bool = True
    """whether each image's features are scaled to length 1, as CMMD does; CLIP-FID does not"""

    def identity(self) -> dict[str, Any]:
        """The model, and whether lengths count."""
        return {"features": self.name, **self.clip.identity(), "normalized": self.normalize}

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, d]``, float32."""
        return self.clip.embed(images, self.normalize)


@dataclass(frozen=True, config=STRICT)
class InceptionFeatures:
    """The 2048 features of FID's InceptionV3. Its weights are published as a pickle, and taken as safetensors alone."""

    name: Literal["inception"] = "inception"
    weights: str = ""
    """a .safetensors file of the weights of 2015-12-05, or a Hub id with model.safetensors"""
    resize: Literal["clean", "legacy_tensorflow"] = "clean"
    """how images become 299 x 299: as clean-fid does, or as FID's first code and torch-fidelity do"""

    @model_validator(mode="after")
    def _given(self) -> InceptionFeatures:
        if not self.weights:
            raise ValueError(f"weights must be given: {REMEDY}; or compare by `name: clip`")
        return self

    @property
    def width(self) -> int:
        """How many features it has."""
        return WIDTH

    @cached_property
    def _network(self) -> FIDInception:
        return _load_inception(self.weights)

    def identity(self) -> dict[str, Any]:
        """The weights, and how images are resized."""
        kind = {"model": f"InceptionV3 of 2015-12-05, {self.weights}", "resize": self.resize, "dtype": "float32"}
        return {"features": self.name, **library("torchvision"), **kind, "weights_sha256": hash_weights(self._network)}

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, 2048]``, float32."""
        resize = resize_clean if self.resize == "clean" else resize_tensorflow
        return self._network(resize(images).to(device())).cpu()


@lru_cache(maxsize=1)
def _load_inception(source: str) -> FIDInception:
    return FIDInception(read_weights(source, "features.weights", REMEDY), source).to(device())


Features = ClipFeatures | InceptionFeatures
FEATURES: dict[str, type[Features]] = {"clip": ClipFeatures, "inception": InceptionFeatures}
