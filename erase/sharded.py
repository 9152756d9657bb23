"""Parameters that several processes hold together, each process its rows (FSDP2).

Everything above sees :class:`Rows`, plain tensors of this process's share. They are the storage that the model reads,
so a look-ahead that shifts them, an optimizer and an average all work on a share without knowing. What needs the
whole, a norm, an inner product, a sketch or a file, adds up over the processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import Shard as Placement


class Rows(nn.Parameter):
    """This process's rows of a parameter; ``whole`` is what the model holds, a view of the same storage."""

    whole: DTensor

    @property
    def entries_before(self) -> int:
        """Entries of the whole parameter that lie on earlier processes; FSDP cuts as ``torch.chunk`` does."""
        rows, mesh = self.whole.shape[0], self.whole.device_mesh
        first = min(rows, mesh.get_local_rank() * -(-rows // mesh.size()))
        return first * (self.whole.numel() // max(1, rows))


def rows_of(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter as rules and optimizers see it: itself, or this process's rows of it."""
    if not isinstance(parameter, DTensor):
        return parameter
    if tuple(parameter.placements) != (Placement(0),):
        raise RuntimeError(f"a parameter is placed as {parameter.placements}; expected rows, Shard(0), on one axis")
    rows = Rows(cast(DTensor, parameter.detach()).to_local(), requires_grad=parameter.requires_grad)
    rows.whole = parameter
    return rows


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether processes hold different rows of these."""
    return any(isinstance(p, Rows) for p in parameters)


def numel(parameter: Tensor) -> int:
    """Entries of the whole parameter."""
    return parameter.whole.numel() if isinstance(parameter, Rows) else parameter.numel()


def lend_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Puts the rows' gradients where the backward pass adds to them."""
    for p in parameters:
        if isinstance(p, Rows):
            cast(Any, p.whole).grad = None if p.grad is None else _as_whole(p, p.grad)


def take_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Takes the gradients from there; FSDP has averaged them over the processes."""
    for p in parameters:
        if isinstance(p, Rows):
            whole = cast(Any, p.whole)
            p.grad, whole.grad = None if whole.grad is None else whole.grad.to_local(), None


def entire(tensor: Tensor, parameter: Tensor, keep: bool = True) -> Tensor:
    """A tensor shaped as the parameter's rows (the rows, a moment, an average), of all processes; else as it is.

    Every process must ask at the same time; who does not ``keep`` it gets an empty tensor.
    """
    if not isinstance(parameter, Rows) or tensor.shape != parameter.shape:
        return tensor
    whole = _as_whole(parameter, tensor.detach()).full_tensor()
    return whole.cpu() if keep else whole.new_empty(0)


def own_rows(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of :func:`entire`: this process's part of a tensor shaped as the whole parameter."""
    if not isinstance(parameter, Rows) or tensor.shape != parameter.whole.shape:
        return tensor
    first = parameter.entries_before
    return tensor.reshape(-1)[first : first + parameter.numel()].view(parameter.shape).clone()


def _as_whole(rows: Rows, tensor: Tensor) -> DTensor:
    whole = rows.whole
    return DTensor.from_local(
        tensor, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def shard(model: nn.Module, units: Iterable[str], mesh: Any = None) -> None:
    """Cuts the model's parameters up, in place; each of the named parts is gathered by itself when it is needed.

    Everything is let go again after a forward pass, the outermost part too: a look-ahead moves the rows between two
    passes, and what had stayed gathered would be stale.
    """
    for name in sorted(units, key=lambda name: -name.count(".")):
        fully_shard(model.get_submodule(name), mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def shard_like(model: nn.Module, duplicate: nn.Module) -> None:
    """Cuts up a copy that was made of the model before, if the model has been cut up since."""
    if isinstance(model, FSDPModule) and not isinstance(duplicate, FSDPModule):
        mesh = next(p.device_mesh for p in model.parameters() if isinstance(p, DTensor))
        units = [name for name, part in model.named_modules() if name and isinstance(part, FSDPModule)]
        shard(duplicate, units, mesh)


def refresh(trainable: dict[str, nn.Parameter], model: nn.Module) -> None:
    """Puts the parameters that the model has now under their names: cutting a model up replaces them."""
    present: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    trainable.update({name: present[name] for name in trainable})


@torch.no_grad()
def make_whole(model: nn.Module, keep: bool) -> None:
    """Puts every parameter together again on the CPU of the processes that ``keep`` it; all processes must call it.

    The others are left without weights.
    """
    for part in model.modules():
        for name, p in part.named_parameters(recurse=False):
            if isinstance(p, DTensor):
                full = p.full_tensor()
                kept = full.cpu() if keep else torch.empty_like(full, device="meta")
                part.register_parameter(name, nn.Parameter(kept, requires_grad=p.requires_grad))
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.__class__ = type(part).__mro__[2]  # FSDP put a class of its own, and FSDPModule, before it
