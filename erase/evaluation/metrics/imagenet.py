"""torchvision's ResNet-50 for ImageNet, weights V2: the judge of Imagenette erasures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.models import ResNet50_Weights, resnet50

from erase.evaluation.metrics.loading import device, hash_weights, library, load_exactly, read_weights

WEIGHTS = "timm/resnet50.tv2_in1k"
"""On the Hub: torchvision's own IMAGENET1K_V2 weights as safetensors, where torchvision ships a pickle."""
IMAGENETTE = {
    0: "tench",
    217: "English springer",
    482: "cassette player",
    491: "chain saw",
    497: "church",
    566: "French horn",
    569: "garbage truck",
    571: "gas pump",
    574: "golf ball",
    701: "parachute",
}
"""Imagenette's ten classes: their numbers among the thousand, and torchvision's labels."""
REMEDY = (
    "torchvision's .pth is turned into one by `python -c \"import torch; from safetensors.torch import save_file; "
    "save_file(torch.load('resnet50-11ad3fa6.pth', weights_only=True), 'resnet50.safetensors')\"`"
)


class ResNet50:
    """Resize to 232, crop 224, as torchvision's V2 recipe evaluates it; the thousand labels are torchvision's."""

    def __init__(self, source: str = WEIGHTS) -> None:
        self.source, self.device = source, device()
        self.model = resnet50()
        load_exactly(self.model, read_weights(source, "imagenet_classifier.model", REMEDY), "classifier", source)
        self.model.float().eval().requires_grad_(False).to(self.device)
        self.transform = ResNet50_Weights.IMAGENET1K_V2.transforms()
        self.labels: tuple[str, ...] = tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])

    @torch.no_grad()
    def logits(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, 1000]``."""
        pixels = torch.stack([self.transform(image.convert("RGB")) for image in images])
        return self.model(pixels.to(self.device)).cpu()

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the weights as loaded."""
        return hash_weights(self.model)

    def identity(self) -> dict[str, Any]:
        """Which weights these are, and how pictures are read."""
        return {
            **library("torchvision"),
            "model": f"resnet50, {self.source}",
            "weights_sha256": self.weights_hash,
            "dtype": "float32",
            "preprocessing": "resize 232, center crop 224, bilinear (IMAGENET1K_V2)",
        }


@lru_cache(maxsize=1)
def load_resnet50(source: str) -> ResNet50:
    """The model, loaded once."""
    return ResNet50(source)
