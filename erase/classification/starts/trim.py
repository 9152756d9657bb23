"""Scissorhands' trim: the weights that matter most to the forget set begin anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from erase.classification.material import Material, largest, none_of
from erase.classification.networks import WRAPPER
from erase.components import STRICT
from erase.errors import refuse


@dataclass(frozen=True, config=STRICT)
class Trim:
    """Scissorhands' first stage (Wu & Harandi 2024), by the connection sensitivity of SNIP (Lee et al., ICLR 2019).

    Of the entries of the layers, all together, those with the largest |g theta|, g the gradient of the forget set's
    mean cross-entropy, get the values that they have in a network that has seen nothing.
    """

    name: Literal["trim"] = "trim"
    share: Annotated[float, Field(gt=0, le=1, description="of the layers' entries that begin anew")] = 0.03
    layers: Annotated[
        tuple[str, ...],
        Field(
            description="starts of the names of the parameters that are looked at, such as `layer4` and `fc`; "
            "none: all of them"
        ),
    ] = ()

    def __call__(self, model: nn.Module, material: Material) -> None:
        """In place; a layer that is not there, or does not move, is refused."""
        refuse(self.problems(material.parameters))
        chosen = {name: material.parameters[name] for name in self._within(material.parameters)}
        slopes = material.gradient_sum(model, material.splits.forget)
        marked = largest({name: (slopes[name] * p.detach()).abs() for name, p in chosen.items()}, self.share)
        fresh = dict(material.fresh("trim").named_parameters())
        with torch.no_grad():
            for name, p in chosen.items():
                p.copy_(torch.where(marked[name], fresh[name].to(p.device), p))

    def problems(self, parameters: Mapping[str, Tensor]) -> Iterator[str]:
        """The layers in which none of these parameters lies, by their names; and a share that is none of the rest."""
        lost = [layer for layer in self.layers if not any(_is_within(name, layer) for name in parameters)]
        for layer in lost:
            known = dict.fromkeys(name.removeprefix(WRAPPER).split(".")[0] for name in parameters)
            yield f"start.layers: found {layer!r}, which no trained parameter lies in; {', '.join(known)}"
        if not lost:
            yield from none_of("start.share", self.share, [parameters[name] for name in self._within(parameters)])

    def _within(self, names: Iterable[str]) -> list[str]:
        """Those of the layers; where none is named, all."""
        return [name for name in names if not self.layers or any(_is_within(name, layer) for layer in self.layers)]


def _is_within(name: str, layer: str) -> bool:
    """Whether a parameter is the layer's, whose name may leave out that of the wrapper."""
    return any(f"{known}.".startswith(f"{layer}.") for known in (name, name.removeprefix(WRAPPER)))
