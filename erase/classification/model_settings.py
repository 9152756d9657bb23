"""Which network is trained, and with which weights it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from erase.components import STRICT, Name, Place

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
UNTRAINED = ("googlenet", "inception_v3")
"""torchvision's networks whose output is not logits alone."""


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """A network by its name, its first layer, and its weights: random, pretrained, or of a checkpoint."""

    source: Literal["torchvision", "timm", "transformers"] = "torchvision"
    """the library that builds it"""
    architecture: Name = "resnet18"
    """a name of torchvision's or timm's, or for transformers a folder or a Hub id"""
    stem: Literal["standard", "small"] = "small"
    """the first layers: `small`, a 3x3 convolution of stride 1 without pooling, for pictures of 8 to 64 pixels
    (torchvision's ResNets only), or the network's own"""
    checkpoint: Place | None = None
    """begin with these weights: a folder that a run has written; a .safetensors file that fits to the last key; or of
    transformers a folder or a Hub id, which must be the architecture too, with the normalisation that it tells of"""
    pretrained: bool = False
    """train the original from the weights that are published under its name on the Hub (timm and transformers); what
    already is the original is a `checkpoint`"""
    replace_head: bool = False
    """give pretrained weights of another number of classes a new, random last layer; default: they are refused"""
    revision: str | None = None
    """branch, tag or commit on the Hub"""

    def problems(self) -> Iterator[str]:
        """What does not go together, before anything is built."""
        if self.stem == "small" and not (self.source == "torchvision" and self.is_resnet):
            found = f"{self.source} {self.architecture}"
            yield f"model.stem: small is made for torchvision's ResNets; found {found}; write `stem: standard`"
        if self.source == "torchvision":
            yield from self._torchvision_problems()
        if self.pretrained and self.checkpoint is not None:
            yield f"model.checkpoint: found {self.checkpoint} beside `pretrained: true`; weights come from one place"
        if self.replace_head and not self.pretrained:
            yield "model.replace_head: found true without `pretrained: true`, where there is no head to replace"
        if self.revision is not None and self.source == "timm" and not self.pretrained:
            yield f"model.revision: found {self.revision} without `pretrained: true`; nothing is fetched; leave it out"
        if self.checkpoint is not None and self.checkpoint.suffix in PICKLES:
            yield pickled("model.checkpoint", self.checkpoint)

    @property
    def is_resnet(self) -> bool:
        """Whether torchvision's class of it is ResNet."""
        return self.architecture.startswith(("resnet", "resnext", "wide_resnet"))

    def _torchvision_problems(self) -> Iterator[str]:
        if self.pretrained:
            yield (
                "model.pretrained: torchvision's weights are pickles, which can run code, and are not read; use "
                "`source: timm`, which publishes the same networks as safetensors, or a `checkpoint`"
            )
        if self.revision is not None:
            yield f"model.revision: torchvision's networks are on no Hub; found {self.revision}; leave it out"
        if self.architecture in UNTRAINED:
            yield f"model.architecture: {self.architecture} has outputs besides its logits; choose another"


def pickled(key: str, file: Path) -> str:
    """Why a file is refused."""
    return f"{key}: {file} is a pickle, which can run code; convert it with safetensors.torch.save_file"
