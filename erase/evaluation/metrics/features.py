"""What two sets of images are compared by: the features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from erase.components import STRICT
from erase.evaluation.metrics.clip_model import UsesClip
from erase.evaluation.metrics.inception import WIDTH, FIDInception, resize_clean, resize_tensorflow
from erase.evaluation.metrics.loading import device, find_weights_file, hash_weights, library, read_weights
from erase.evaluation.metrics.protocols import Asked

WEIGHTS_KEY = "features.weights"
REMEDY = (
    "its weights are pt_inception-2015-12-05-6726825d.pth (in the releases of pytorch-fid and torch-fidelity), turned "
    'into safetensors by `python -c "import torch; from safetensors.torch import save_file; '
    "save_file(torch.load('pt_inception-2015-12-05-6726825d.pth', weights_only=True), 'inception.safetensors')\"`"
)


@dataclass(frozen=True, config=STRICT)
class ClipFeatures(UsesClip):
    """The image features of an open_clip model: `shapes` offline; ViT-B/32 for CLIP-FID, ViT-L/14 at 336 for CMMD."""

    name: Literal["clip"] = "clip"
    normalize: bool | None = None
    """whether each image's features are scaled to length 1; default: as the metric's paper, for `cmmd` alone"""

    def identity(self) -> dict[str, Any]:
        """The model, and whether lengths count."""
        return {"features": self.name, **self.clip.identity(), "normalized": bool(self.normalize)}

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, d]``, float32."""
        return self.clip.embed(images, bool(self.normalize))


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

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses weights that are not there; any prompts will do."""
        find_weights_file(self.weights, WEIGHTS_KEY, REMEDY)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, 2048]``, float32."""
        resize = resize_clean if self.resize == "clean" else resize_tensorflow
        return self._network(resize(images).to(device())).cpu()


@lru_cache(maxsize=1)
def _load_inception(source: str) -> FIDInception:
    return FIDInception(read_weights(source, WEIGHTS_KEY, REMEDY), source).to(device())


Features = ClipFeatures | InceptionFeatures
FEATURES: dict[str, type[Features]] = {"clip": ClipFeatures, "inception": InceptionFeatures}


def _settled(normalize: bool) -> AfterValidator:
    """Says of CLIP's features what the settings leave open."""

    def settle(features: Features) -> Features:
        if isinstance(features, ClipFeatures) and features.normalize is None:
            return replace(features, normalize=normalize)
        return features

    return AfterValidator(settle)


UnitFeatures = Annotated[Features, Field(discriminator="name"), _settled(True)]
"""What CMMD compares by: CLIP's features have length 1, unless the settings say otherwise."""
FeaturesAsFound = Annotated[Features, Field(discriminator="name"), _settled(False)]
"""What FID and KID compare by: the length of CLIP's features counts unless the settings say otherwise, as in CLIP-FID.

Of unit vectors KID's cubic kernel is all but linear, and would see no more than a difference of the means.
"""
