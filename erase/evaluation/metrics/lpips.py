"""LPIPS: a perceptual distance that was fitted to what people see, through torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torchmetrics.functional.image.lpips import _LPIPS

from erase.components import STRICT
from erase.errors import UserError
from erase.evaluation.metrics.loading import device, find_weights_file, hash_weights, library, read_weights
from erase.evaluation.metrics.perceptual import pixels_of_pair
from erase.evaluation.metrics.protocols import Asked, Columns

BACKBONE = "lpips.backbone"
Net = Literal["alex", "vgg"]
FILES: dict[Net, str] = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""What torchvision publishes, as pickles."""
SMALLEST: dict[Net, int] = {"alex": 31, "vgg": 16}
"""Pixels a side below which a layer of the network sees nothing."""
VGG_ON_HUB = "timm/vgg16.tv_in1k"
"""torchvision's own VGG-16 weights, as safetensors."""


@dataclass(frozen=True, config=STRICT)
class Lpips:
    """LPIPS v0.1 (Zhang et al. 2018): weighted squared distance of unit features of five layers; 0 for equal pictures.

    The layers' weights come with torchmetrics, which reads them without running code; the network's are read here,
    from safetensors.
    """

    name: Literal["lpips"] = "lpips"
    net: Net = "alex"
    """network: `alex`, as nearly every paper has it, or `vgg`"""
    backbone: str = ""
    """.safetensors file, or Hub id, of torchvision's weights; of `vgg` there are some on the Hub, the default"""
    resize: Annotated[int, Field(ge=31)] | None = None
    """pixels a side that pictures are first resized to; ESD's script uses 64"""

    @model_validator(mode="after")
    def _given(self) -> Lpips:
        if self.net == "alex" and not self.backbone:
            raise ValueError(f"backbone must be given for `alex`: {remedy(self.net)}; or use `net: vgg`")
        return self

    @property
    def _source(self) -> str:
        return self.backbone or VGG_ON_HUB

    def check(self, pictures: Sequence[Asked]) -> None:
        """Refuses weights that are not there; any prompts will do."""
        find_weights_file(self._source, BACKBONE, remedy(self.net))

    def identity(self) -> dict[str, Any]:
        """The library, the weights, and the size."""
        weights = hash_weights(load_lpips(self.net, self._source, self.resize))
        kept = {"network": self.net, "backbone": self._source, "weights_sha256": weights, "resize": self.resize}
        return {"metric": self.name, **library("torchmetrics"), "version_of_lpips": "0.1", **kept}

    @torch.no_grad()
    def __call__(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Columns:
        """``lpips``, one a pair."""
        network = load_lpips(self.net, self._source, self.resize)
        smallest = 1 if self.resize else SMALLEST[self.net]
        values = []
        for then, now in zip(before, after, strict=True):
            one, other = pixels_of_pair(then, now, smallest, self.name)
            values.append(float(network(one[None].to(device()), other[None].to(device()), normalize=True)))
        return {"lpips": values}


def remedy(net: Net) -> str:
    """How weights that torchvision publishes as a pickle become safetensors."""
    return (
        f"torchvision's {FILES[net]} is turned into safetensors by `python -c \"import torch; from safetensors.torch "
        f"import save_file; save_file(torch.load('{FILES[net]}', weights_only=True), '{net}.safetensors')\"`"
    )


@lru_cache(maxsize=1)
def load_lpips(net: Net, source: str, resize: int | None) -> Any:
    """torchmetrics' network, its backbone filled from safetensors instead of a download of pickles."""
    weights = read_weights(source, BACKBONE, remedy(net))
    network = _LPIPS(pretrained=True, net=net, pnet_rand=True, resize=resize)
    filled = {}
    for name in network.net.state_dict():
        layer, part = name.split(".")[-2:]
        filled[name] = weights.get(f"features.{layer}.{part}")
    missing = [name for name, tensor in filled.items() if tensor is None]
    if missing:
        raise UserError(f"lpips.backbone: {source} lacks features.{missing[0].split('.', 1)[1]}; {remedy(net)}")
    try:
        network.net.load_state_dict(filled)
    except RuntimeError as error:
        raise UserError(f"lpips.backbone: {source} is of another network: {error}; {remedy(net)}") from None
    return network.to(device())
