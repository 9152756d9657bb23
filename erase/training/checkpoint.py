"""Checkpoints without pickle: safetensors for tensors, JSON for the rest; whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.config import differences
from erase.errors import UserError
from erase.protocols import UpdateState
from erase.provenance import new_folder, write_json
from erase.sharded import entire, own_rows
from erase.training.cost import Cost
from erase.training.loss_scale import LossScale
from erase.training.settings import FREE_ON_RESUME, ROUNDING

PREFIX = "checkpoint-"
STATE_KEYS = {"update", "cost", "schedule", "rates", "plain", "identity"}
WEIGHTS, OPTIMIZER, AVERAGE = "trainable.safetensors", "optimizer.safetensors", "average.safetensors"
STATE = "state.json"


def save_checkpoint(
    folder: Path,
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    state: UpdateState,
    cost: Cost,
    identity: Mapping[str, Any],
    *,
    average: Any = None,
    scale: LossScale | None = None,
    writes: bool = True,
) -> None:
    """Writes a checkpoint beside the older ones: parameters and buffers that steps change, by name, and the rest.

    ``identity`` is what a run that resumes must share. Where processes hold rows of parameters all must call this, to
    put them together; one of them ``writes``.
    """
    tensors, plain = _gathered(trained, optimizer, average, writes)
    if not writes:
        return
    schedule = {
        k: v for k, v in scheduler.state_dict().items() if isinstance(v, int | float | list) and k != "lr_lambdas"
    }
    content: dict[str, Any] = {"update": asdict(state), "cost": asdict(cost), "schedule": schedule}
    content |= {"rates": [group["lr"] for group in optimizer.param_groups], "plain": plain, "identity": identity}
    content |= {"loss_scale": asdict(scale)} if scale else {}
    content |= {"average_steps": average.optimization_step} if average else {}
    try:
        with new_folder(folder) as temporary:
            for name, part in tensors.items():
                save_file(part, temporary / name)
            write_json(temporary / STATE, content)
    except (OSError, SafetensorError) as error:
        kept = latest(folder.parent)
        remains = f"{kept} is whole" if kept else "there is no earlier one"
        raise UserError(
            f"output_dir: {folder} could not be written ({error}); {remains}. Free space and resume"
        ) from None


def _gathered(
    trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, average: Any, keep: bool
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors of each file, whole, and the optimizer's plain values."""

    def whole(tensor: Tensor, parameter: Tensor) -> Tensor:
        return entire(tensor.detach(), parameter, keep).contiguous()

    parameters = _parameters(optimizer)
    moments, plain = dict[str, Tensor](), dict[str, Any]()
    for index, values in optimizer.state_dict()["state"].items():
        inner = [pair for value in values.values() if isinstance(value, dict) for pair in value.items()]
        for key, value in [*values.items(), *inner]:  # bitsandbytes keeps its own in a dict
            if isinstance(value, Tensor):
                moments[f"{index}.{key}"] = whole(value, parameters[index])
            elif value is not None and not isinstance(value, dict):
                plain[f"{index}.{key}"] = value
    shared = {value.data_ptr() for value in moments.values()}
    if keep and len(shared) < len(moments):  # as bitsandbytes' tables are; safetensors writes no tensor twice
        moments = {key: value.to("cpu", copy=True) for key, value in moments.items()}
    tensors = {WEIGHTS: {name: whole(p, p) for name, p in trained.items()}, OPTIMIZER: moments}
    if average:
        pairs = zip(average.shadow_params, parameters, strict=True)
        tensors[AVERAGE] = {str(index): whole(shadow, p) for index, (shadow, p) in enumerate(pairs)}
    return tensors, plain


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def restore_checkpoint(
    folder: Path,
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    identity: Mapping[str, Any],
    *,
    average: Any = None,
    scale: LossScale | None = None,
) -> tuple[UpdateState, Cost]:
    """Puts weights, optimizer and schedule back, bit for bit; a checkpoint of another run is refused."""
    content = read_state(folder)
    check_identity(folder, content["identity"], identity)
    weights, moments = (_load(folder / name) for name in (WEIGHTS, OPTIMIZER))
    if set(weights) != set(trained):
        odd = sorted(set(weights) ^ set(trained))[0]
        raise UserError(f"resume_from_checkpoint: {folder} holds other parameters than this run trains, such as {odd}")
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(own_rows(weights[name], p))
    state, parameters = dict[int, dict[str, Any]](), _parameters(optimizer)
    for key, value in [*moments.items(), *content["plain"].items()]:
        index, _, name = key.partition(".")
        part = own_rows(value, parameters[int(index)]) if isinstance(value, Tensor) else value
        state.setdefault(int(index), {})[name] = part
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    lambdas = {"lr_lambdas": scheduler.state_dict()["lr_lambdas"]}
    scheduler.load_state_dict(content["schedule"] | lambdas)
    for group, rate in zip(optimizer.param_groups, content["rates"], strict=True):
        group["lr"] = rate
    if average:
        stored, average.optimization_step = _load(folder / AVERAGE), content["average_steps"]
        for index, (shadow, p) in enumerate(zip(average.shadow_params, parameters, strict=True)):
            shadow.copy_(own_rows(stored[str(index)], p))
    if scale:
        scale.__dict__.update(content["loss_scale"])
    content["update"].pop("looks", None)  # an earlier version's, which nothing asks for today
    return UpdateState(**content["update"]), Cost(**content["cost"])


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"resume_from_checkpoint: {file.parent} is damaged: {error}") from None


def read_state(folder: Path) -> dict[str, Any]:
    """A checkpoint's JSON."""
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"resume_from_checkpoint: {folder} is no checkpoint: it has no {STATE}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"resume_from_checkpoint: {folder / STATE} is damaged: {error}") from None
    missing = STATE_KEYS - set(content if isinstance(content, dict) else ())
    if missing:
        raise UserError(f"resume_from_checkpoint: {folder / STATE} is damaged: it lacks {', '.join(sorted(missing))}")
    return content


def check_identity(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose run was set up otherwise, naming each difference."""
    untold = now.keys() - then.keys()
    changed = differences(then, {key: value for key, value in now.items() if key not in untold})
    by_batch = then.get("config", {}).get("batch_norm") == "batch"  # then a micro-batch's statistics are its own
    free = FREE_ON_RESUME if by_batch else (*FREE_ON_RESUME, *ROUNDING)
    found = [line for line in changed if line.split(":")[0].removeprefix("config.") not in free]
    found += [f"{key}: not in this checkpoint, which an earlier version wrote; start again" for key in sorted(untold)]
    if found:
        raise UserError(f"resume_from_checkpoint: {folder} comes from a run that differs", *found)


def find_checkpoint(wanted: str, output_dir: Path) -> Path:
    """The folder that ``resume_from_checkpoint`` names."""
    if wanted != "latest":
        return Path(wanted)
    found = latest(output_dir)
    if found is None:
        raise UserError(f"resume_from_checkpoint: {output_dir} holds no checkpoint to resume from")
    return found


def latest(output_dir: Path) -> Path | None:
    """The checkpoint of the highest step, if there is one."""
    found = all_checkpoints(output_dir)
    return found[-1] if found else None


def all_checkpoints(output_dir: Path) -> list[Path]:
    """Every whole checkpoint, by step."""
    found = [f for f in output_dir.glob(f"{PREFIX}*") if f.is_dir() and f.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda folder: int(folder.name.removeprefix(PREFIX)))


def drop_after(output_dir: Path, step: int) -> None:
    """Removes the checkpoints of later steps, which a run that goes on makes again, and what a killed one left."""
    for folder in (*output_dir.glob(f".{PREFIX}*.tmp*"), *output_dir.glob(f".{PREFIX}*.old*")):
        shutil.rmtree(folder)
    for folder in all_checkpoints(output_dir):
        if int(folder.name.removeprefix(PREFIX)) > step:
            shutil.rmtree(folder)


def prune(output_dir: Path, limit: int | None) -> None:
    """Removes the oldest checkpoints beyond the limit."""
    for folder in all_checkpoints(output_dir)[:-limit] if limit else []:
        shutil.rmtree(folder)
