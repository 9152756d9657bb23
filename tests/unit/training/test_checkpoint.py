"""Checkpoints: bit for bit, whole or absent, without pickle, and of the same run."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from erase.errors import UserError
from erase.protocols import UpdateState
from erase.training.checkpoint import (
    all_checkpoints,
    check_identity,
    drop_after,
    find_checkpoint,
    latest,
    prune,
    read_state,
    restore_checkpoint,
    save_checkpoint,
)
from erase.training.cost import Cost
from erase.training.optimization import make_optimizer, make_scheduler
from erase.training.settings import FREE_ON_RESUME, ROUNDING, TrainingSettings
from tests.properties import assert_same_bits

IDENTITY = {"config": {"seed": 0, "update": {"name": "lur"}}, "base": "b" * 64, "total_batch": 16}
STATE = UpdateState(seed=2**62 + 1, step=3, alpha=0.1 + 0.2, retain_norm=1e-30, forget_norm=1 / 3)
STATE.cosines, STATE.conflicts, STATE.block_conflicts = 3, 2, {"up.attention": 1, "other": 0}

OPTIMIZERS = ["adamw", "adam", "sgd", *(["adamw8bit"] if find_spec("bitsandbytes") else [])]
COST = Cost(gradient_evaluations=9, model_evaluations=108, seconds=1 / 3)


class Training:
    """A small network with its optimizer and schedule, as the loop has them."""

    def __init__(self, **given: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        course: dict[str, Any] = {"lr_scheduler": "cosine", "lr_warmup_steps": 2, "max_train_steps": 9}
        course |= {"output_dir": Path("unused"), "learning_rate": 0.1}
        settings = TrainingSettings(**(course | given))
        self.trainable = {name: p for name, p in self.model.named_parameters() if name != "0.bias"}
        self.optimizer = make_optimizer(settings, self.trainable.values())
        self.scheduler = make_scheduler(settings, self.optimizer)

    def train(self, steps: int, first: int = 0) -> None:
        for step in range(first, first + steps):
            data = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            self.model(data).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()

    def save(self, folder: Path, identity: dict[str, Any] = IDENTITY) -> Path:
        save_checkpoint(folder, self.trainable, self.optimizer, self.scheduler, STATE, COST, identity)
        return folder

    def restore(self, folder: Path, identity: dict[str, Any] = IDENTITY) -> UpdateState:
        state, cost = restore_checkpoint(folder, self.trainable, self.optimizer, self.scheduler, identity)
        assert cost == COST
        return state

    def moments(self) -> dict[str, torch.Tensor]:
        state = self.optimizer.state_dict()["state"]
        found = {f"{i}.{k}": v for i, values in state.items() for k, v in flat(values) if isinstance(v, Tensor)}
        return dict(sorted(found.items()))


def flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """bitsandbytes keeps tensors in a dict of their own."""
    for key, value in values.items():
        yield from flat(value) if isinstance(value, dict) else [(key, value)]


def saved(folder: Path, **given: Any) -> tuple[Training, Path]:
    training = Training(**given)
    training.train(3)
    return training, training.save(folder / "checkpoint-3")


def refused(folder: Path, identity: dict[str, Any] = IDENTITY) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        Training().restore(folder, identity)
    return caught.value.problems


@pytest.mark.parametrize("given", [{"optimizer": name} for name in OPTIMIZERS], ids=lambda g: g["optimizer"])
def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path, given: dict[str, Any]) -> None:
    training, folder = saved(tmp_path, **given)
    resumed = Training(**given)
    assert resumed.restore(folder) == STATE
    assert_same_bits(resumed.trainable.values(), training.trainable.values())
    assert resumed.moments().keys() == training.moments().keys()
    assert len(training.moments()) >= len(training.trainable)
    assert_same_bits(resumed.moments().values(), training.moments().values())
    assert resumed.scheduler.state_dict()["last_epoch"] == training.scheduler.state_dict()["last_epoch"] == 3
    for each in (training, resumed):
        each.train(4, first=3)
    assert_same_bits(resumed.trainable.values(), training.trainable.values())
    assert resumed.optimizer.param_groups[0]["lr"] == training.optimizer.param_groups[0]["lr"]


def test_without_its_moments_a_run_would_go_on_otherwise(tmp_path: Path) -> None:
    training, folder = saved(tmp_path)
    resumed = Training()
    resumed.restore(folder)
    resumed.optimizer.state.clear()
    for each in (training, resumed):
        each.train(1, first=3)
    assert any(
        not torch.equal(a, b) for a, b in zip(resumed.trainable.values(), training.trainable.values(), strict=True)
    )


def test_plain_sgd_has_no_moments_and_is_restored_too(tmp_path: Path) -> None:
    given = {"optimizer": "sgd", "adam_beta1": 0.0}
    training, folder = saved(tmp_path, **given)
    resumed = Training(**given)
    resumed.restore(folder)
    assert_same_bits(resumed.trainable.values(), training.trainable.values())


def test_what_is_not_trained_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    with safe_open(folder / "trainable.safetensors", "pt") as weights:
        assert set(weights.keys()) == {"0.weight", "1.weight", "1.bias"}


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    assert {file.name for file in folder.iterdir()} == {"trainable.safetensors", "optimizer.safetensors", "state.json"}
    json.loads((folder / "state.json").read_text(encoding="utf-8"))
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            assert len(tensors.keys()) > 0


def test_a_checkpoint_of_another_run_is_refused_with_each_difference(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    other = {**IDENTITY, "config": {"seed": 1, "update": {"name": "weighted_sum"}}, "base": "c" * 64}
    problems = refused(folder, other)
    assert problems[0] == f"resume_from_checkpoint: {folder} comes from a run that differs"
    assert problems[1:] == (
        f"base: '{'b' * 64}' then, '{'c' * 64}' now",
        "config.seed: 0 then, 1 now",
        "config.update.name: 'lur' then, 'weighted_sum' now",
    )


def test_what_an_earlier_version_did_not_write_down_is_named(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    (problem,) = refused(folder, {**IDENTITY, "data": {"images": "d" * 64}})[1:]
    assert problem == "data: not in this checkpoint, which an earlier version wrote; start again"


def test_a_refused_checkpoint_touches_nothing(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    fresh, expected = Training(), Training()
    with pytest.raises(UserError):
        fresh.restore(folder, {**IDENTITY, "base": "c"})
    assert_same_bits(fresh.trainable.values(), expected.trainable.values())
    assert fresh.moments() == {}


@pytest.mark.parametrize("key", (*FREE_ON_RESUME, *ROUNDING))
def test_settings_of_no_consequence_may_differ(key: str) -> None:
    def identity(value: str) -> dict[str, Any]:
        tree: dict[str, Any] = {key.split(".")[-1]: value}
        for block in reversed(key.split(".")[:-1]):
            tree = {block: tree}
        return {"config": tree}

    check_identity(Path("checkpoint-3"), identity("then"), identity("now"))


@pytest.mark.parametrize("key", ROUNDING)
def test_how_a_batch_is_divided_is_free_unless_batch_norm_sees_it(key: str) -> None:
    for mode in ("frozen", "batch"):
        then, now = ({"config": {key: value, "batch_norm": mode}} for value in (8, 16))
        if mode == "frozen":
            check_identity(Path("checkpoint-3"), then, now)
        else:
            with pytest.raises(UserError, match=f"{key}: 8 then, 16 now"):
                check_identity(Path("checkpoint-3"), then, now)


def test_other_parameters_are_named(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    fresh = Training()
    del fresh.trainable["1.bias"]
    with pytest.raises(UserError, match=r"holds other parameters than this run trains, such as 1\.bias"):
        fresh.restore(folder)


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("keep", [0.0, 0.6, None])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, keep: float | None) -> None:
    _, folder = saved(tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(whole[: int(keep * len(whole))])
    (problem,) = refused(folder)
    assert problem.startswith(f"resume_from_checkpoint: {folder}")
    assert "damaged" in problem or "is no checkpoint" in problem


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"identity": {}}'])
def test_a_state_that_is_json_but_not_a_checkpoints_is_named(tmp_path: Path, content: str) -> None:
    _, folder = saved(tmp_path)
    (folder / "state.json").write_text(content, encoding="utf-8")
    assert refused(folder)[0].startswith(f"resume_from_checkpoint: {folder}")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_the_checkpoint_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    training, folder = saved(tmp_path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    from safetensors.torch import save_file

    calls: list[Path] = []

    def full(tensors: dict[str, torch.Tensor], file: Path) -> None:
        calls.append(file)
        save_file(tensors, file)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("erase.training.checkpoint.save_file", full)
    with pytest.raises(UserError) as caught:
        training.save(tmp_path / "checkpoint-4")
    assert str(caught.value).startswith(f"output_dir: {tmp_path / 'checkpoint-4'} could not be written")
    assert str(caught.value).endswith(f"{folder} is whole. Free space and resume")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert Training().restore(folder) == STATE


def test_a_full_disk_says_when_there_is_no_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("erase.training.checkpoint.save_file", full)
    with pytest.raises(UserError, match=r"No space left on device.*; there is no earlier one"):
        Training().save(tmp_path / "checkpoint-1")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_the_same_step_is_replaced_whole(tmp_path: Path) -> None:
    training, folder = saved(tmp_path)
    (folder / "stray").touch()
    training.train(1, first=3)
    training.save(folder)
    resumed = Training()
    resumed.restore(folder)
    assert_same_bits(resumed.trainable.values(), training.trainable.values())
    assert not (folder / "stray").exists()


def folders(output: Path, *names: str) -> None:
    for name in names:
        (output / name).mkdir()


def test_the_latest_has_the_highest_number(tmp_path: Path) -> None:
    folders(tmp_path, "checkpoint-2", "checkpoint-10", "checkpoint-9", "checkpoint-x", ".checkpoint-99.tmp1", "other")
    (tmp_path / "checkpoint-50").touch()
    assert [folder.name for folder in all_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-9", "checkpoint-10"]
    assert latest(tmp_path) == find_checkpoint("latest", tmp_path) == tmp_path / "checkpoint-10"
    assert find_checkpoint(str(tmp_path / "checkpoint-2"), tmp_path) == tmp_path / "checkpoint-2"


def test_without_a_checkpoint_there_is_nothing_to_resume_from(tmp_path: Path) -> None:
    assert latest(tmp_path) is latest(tmp_path / "none") is None
    with pytest.raises(UserError, match=r"^resume_from_checkpoint: .* holds no checkpoint to resume from"):
        find_checkpoint("latest", tmp_path)
    with pytest.raises(UserError, match=r"is no checkpoint: it has no state\.json"):
        read_state(tmp_path / "none")


@pytest.mark.parametrize(
    ("limit", "left"), [(1, ["10"]), (2, ["9", "10"]), (5, ["2", "9", "10"]), (None, ["2", "9", "10"])]
)
def test_the_oldest_beyond_the_limit_are_removed(tmp_path: Path, limit: int | None, left: list[str]) -> None:
    folders(tmp_path, "checkpoint-2", "checkpoint-10", "checkpoint-9", "other")
    prune(tmp_path, limit)
    assert [folder.name.removeprefix("checkpoint-") for folder in all_checkpoints(tmp_path)] == left
    assert (tmp_path / "other").exists()


def test_later_checkpoints_than_the_one_resumed_from_are_removed(tmp_path: Path) -> None:
    folders(tmp_path, "checkpoint-2", "checkpoint-10", "checkpoint-9", "other", ".checkpoint-12.tmp77", ".x.tmp77")
    drop_after(tmp_path, 9)
    assert not (tmp_path / ".checkpoint-12.tmp77").exists() and (tmp_path / ".x.tmp77").exists()
    assert [folder.name for folder in all_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-9"]
    assert (tmp_path / "other").exists()


def test_a_state_survives_json_to_the_last_digit(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert UpdateState(**read_state(Path(moved))["update"]) == STATE
    assert replace(STATE, alpha=0.3) != STATE


def test_a_checkpoint_from_before_cosines_were_counted_counts_from_there_on(tmp_path: Path) -> None:
    training, folder = saved(tmp_path)
    content = json.loads((folder / "state.json").read_text())
    for key in ("cosines", "block_conflicts"):
        del content["update"][key]
    (folder / "state.json").write_text(json.dumps(content))
    state = training.restore(folder)
    assert (state.step, state.conflicts, state.cosines, state.block_conflicts) == (3, 0, 0, {})
    assert state.conflict_share is None
