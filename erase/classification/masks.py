"""Which entries of the parameters move: none held back, or those that matter to the forget set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from erase.classification.material import Material, largest, none_of
from erase.classification.splits import Splits
from erase.components import STRICT, Place
from erase.config import dump
from erase.errors import UserError

FILE = "mask.safetensors"
Entries = dict[str, Tensor]
"""True where a parameter's entry moves, by the parameter's name."""


@dataclass(frozen=True, config=STRICT)
class NoMask:
    """Every entry moves."""

    name: Literal["none"] = "none"
    holds: ClassVar[bool] = False


@dataclass(frozen=True, config=STRICT)
class Saliency:
    """SalUn (Fan et al., ICLR 2024, eq. 3): the share of entries with the largest |gradient| on the forget set moves.

    The gradient is that of the cross-entropy summed over the forget set, of the network before unlearning; the share
    is of all trained entries together. All others stay as they are, bit for bit, whatever momentum or weight decay say.
    """

    name: Literal["saliency"] = "saliency"
    share: Annotated[float, Field(gt=0, le=1, description="of all trained entries, which move")] = 0.5
    file: Annotated[Place | None, Field(description=f"a stored {FILE} to use again, of the same forget set")] = None
    holds: ClassVar[bool] = True

    def entries(self, model: nn.Module, material: Material) -> Entries:
        """The largest, found in one pass over the forget set."""
        slopes = material.gradient_sum(model, material.splits.forget)
        return largest({name: slope.abs() for name, slope in slopes.items()}, self.share)

    def problems(self, parameters: Mapping[str, Tensor]) -> Iterator[str]:
        """A share that is none of these parameters' entries."""
        yield from none_of("mask.share", self.share, parameters.values())


@dataclass(frozen=True, config=STRICT)
class FisherRatio:
    """SFRon (Huang et al., NeurIPS 2024): the forget gradient counts where F_f >= threshold F_r only.

    F is the mean over batches of the squared gradient of the batch's cross-entropy, on the forget and the retain set,
    of the network before unlearning.
    """

    name: Literal["fisher_ratio"] = "fisher_ratio"
    threshold: Annotated[float, Field(gt=0, description="least F_f / F_r of an entry that forgetting moves")] = 1.0
    batch_size: Annotated[
        int, Field(ge=1, description="samples in a batch whose gradient is squared; a smaller set's size limits it")
    ] = 128
    file: Annotated[Place | None, Field(description=f"a stored {FILE} to use again, of the same forget set")] = None
    holds: ClassVar[bool] = False

    def entries(self, model: nn.Module, material: Material) -> Entries:
        """Found in one pass over both sets."""
        splits, size = material.splits, material.common_size(self.batch_size)
        forget, retain = (material.fisher(model, part, size) for part in (splits.forget, splits.retain))
        return {name: forget[name] >= self.threshold * retain[name] for name in forget}


Mask = NoMask | Saliency | FisherRatio
MASKS: dict[str, type[Mask]] = {"none": NoMask, "saliency": Saliency, "fisher_ratio": FisherRatio}


class Masked:
    """A mask at work on the parameters of a run."""

    def __init__(self, mask: Mask, model: nn.Module, material: Material) -> None:
        self.mask, self.entries, self.identity = mask, Entries(), dict[str, str]()
        self._held: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        if isinstance(mask, NoMask):
            return
        self.identity = identity_of(mask, material.splits) | {"model": hash_weights(model)}
        if mask.file is None:
            self.entries = mask.entries(model, material)
            if not any(moves.any() for moves in self.entries.values()):
                raise UserError(f"mask: found {self.identity['mask']}, which lets none of the entries move; let some")
        else:
            self.entries = read_mask(mask.file, self.identity, material.parameters)

    @torch.no_grad()
    def hold(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """From now on the masked-out entries stay as they are now."""
        if self.mask.holds:
            self._held = [(p, self.entries[name], p.detach().clone()) for name, p in parameters.items()]

    @contextmanager
    def on(self, parameters: Mapping[str, nn.Parameter], forgetting: bool) -> Iterator[None]:
        """While the body runs, gradients of an objective are 0 where the mask says that it moves nothing."""
        with ExitStack() as stack:
            if self.entries and (forgetting or self.mask.holds):
                for name, p in parameters.items():
                    handle = p.register_hook(lambda gradient, moves=self.entries[name]: gradient * moves)
                    stack.callback(handle.remove)
            yield

    @torch.no_grad()
    def put_back(self) -> None:
        """Undoes what momentum or weight decay did to entries that are held."""
        for p, moves, before in self._held:
            p.copy_(torch.where(moves, p, before))

    def save(self, folder: Path) -> None:
        """Writes the mask with what it belongs to; nothing, where nothing is masked."""
        if self.entries:
            tensors = {name: entries.cpu().contiguous() for name, entries in self.entries.items()}
            save_file(tensors, folder / FILE, metadata=self.identity)


def identity_of(mask: Saliency | FisherRatio, splits: Splits) -> dict[str, str]:
    """What a mask was made from, but for the network: settings, samples, and how they were normalised."""
    settings = {key: value for key, value in dump(mask).items() if key != "file"}
    normalise = {"mean": splits.normalise.mean, "std": splits.normalise.std}
    made_from = {"mask": json.dumps(settings, sort_keys=True), "normalise": json.dumps(normalise)}
    parts = {"forget": splits.forget} | ({"retain": splits.retain} if isinstance(mask, FisherRatio) else {})
    return made_from | {name: part.hash() for name, part in parts.items()}


def check_mask(mask: Mask, splits: Splits) -> None:
    """Refuses a stored mask of other settings or samples, before there is a network to hold it against."""
    if not isinstance(mask, NoMask) and mask.file is not None:
        _stored(mask.file, identity_of(mask, splits))


def read_mask(file: Path, identity: Mapping[str, str], parameters: Mapping[str, nn.Parameter]) -> Entries:
    """A stored mask; one of another kind, forget set or network is refused."""
    entries = _stored(file, identity)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if {name: tuple(tensor.shape) for name, tensor in entries.items()} != shapes:
        raise UserError(f"mask.file: {file} is of other parameters than `parameters` chooses; leave `mask.file` out")
    return {name: entries[name].to(p.device) for name, p in parameters.items()}


SAID = {
    "forget": "a forget set of the hash",
    "retain": "a retain set of the hash",
    "model": "a network of the hash",
    "normalise": "pictures normalised by",
    "mask": "settings",
}


def _stored(file: Path, identity: Mapping[str, str]) -> Entries:
    """What a mask's file holds, if it was made from what ``identity`` says."""
    try:
        with safe_open(file, framework="pt") as stored:
            found = stored.metadata() or {}
            entries = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"mask.file: {file} cannot be read: {error}") from None
    for key, now in identity.items():
        if found.get(key) != now:
            raise UserError(
                f"mask.file: {file} was made with {SAID[key]} {found.get(key)}; this run's is {now}; leave "
                "`mask.file` out, and the mask is made anew"
            )
    return entries


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
