"""fp16 with its loss scale, averaged weights, frozen weights in half the memory, and a compiled denoiser."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase.config import load
from erase.errors import UserError
from erase.gradients import gather, gathering
from erase.parameters import LoRA, store_frozen
from erase.protocols import UpdateState
from erase.training.checkpoint import read_state
from erase.training.erasure import ErasureRun, check_run
from erase.training.interruption import Interrupted
from erase.training.launch import autocast
from erase.training.loss_scale import GROWTH_STEPS, LossScale
from erase.training.settings import TrainingSettings
from erase.training.step_log import read_log
from erase.updates import LUR, WeightedSum
from tests.properties import assert_same_bits
from tests.tiny import tiny_unet, write_config
from tests.unit.training.runs import WatchedRun, make_run, weights
from tests.unit.updates.every_rule import RULES
from tests.unit.updates.opposed import Opposed
from tests.unit.updates.problems import flat_gradient, summed

# Loss scale


def test_the_scale_halves_at_once_and_doubles_after_many_finite_steps() -> None:
    scale = LossScale(value=8.0)
    assert scale.learn(False) and scale == LossScale(4.0, 0)
    for _ in range(GROWTH_STEPS - 1):
        scale.learn(True)
    assert scale == LossScale(4.0, GROWTH_STEPS - 1)
    assert scale.learn(True) and scale == LossScale(8.0, 0)


def test_a_scale_of_1_cannot_be_halved() -> None:
    assert LossScale(2.0).learn(False)
    assert not LossScale(1.0).learn(False)


@pytest.mark.parametrize("name", [name for name in RULES if not name.startswith("exact")])
def test_no_rule_sees_the_scale(name: str) -> None:
    rule, step = RULES[name]
    found = []
    for scale in (1.0, 2.0**16):
        problem, state = Opposed().share(0, 1), UpdateState(step=step)
        with gathering(scale):
            seen = rule(problem.retain, problem.forget, problem.parameters, state)
        found.append((flat_gradient(problem.parameters).tolist(), seen, state))
    assert found[0] == found[1], "a power of two rounds nothing"


def test_without_a_scale_a_small_fp16_gradient_vanishes() -> None:
    p = nn.Parameter(torch.ones(1))
    tiny = summed([p], lambda t: (t.half() * torch.tensor(2.0**-14).half()).float().sum() * 2.0**-14)
    gather(tiny, [p])
    assert flat_gradient([p]).item() == 0
    p.grad = None
    with gathering(2.0**16):
        gather(tiny, [p])
    assert flat_gradient([p]).item() == 2.0**-28


def fp16_run(folder: Path, **given: Any) -> WatchedRun:
    run = make_run(folder, mixed_precision="fp16", **given)
    half = lambda: torch.autocast("cpu", torch.float16)  # noqa: E731
    run.task.denoiser = type(run.task.denoiser)(**{**vars(run.task.denoiser), "autocast": half})
    return run


def test_an_overflowing_step_is_skipped_and_halves_the_scale(tmp_path: Path) -> None:
    run = fp16_run(tmp_path, update=LUR())
    assert run.scale is not None
    kept: list[list[Tensor]] = []
    run.scale.value = 2.0**60  # any gradient of fp16 overflows
    run.task.before = lambda step: kept.append(weights(run)) or (step == 1 and vars(run.scale).update(value=2.0**10))
    run.train()
    assert_same_bits(kept[0], kept[1])
    assert not any(torch.equal(a, b) for a, b in zip(kept[1], kept[2], strict=True))
    first, *later = read_log(tmp_path)
    assert (first["loss_scale"], first["forget_norm"], first["retain_norm"]) == (2.0**60, None, 0.0)
    assert [line["loss_scale"] for line in later[1:]] == [2.0**10] * 2
    assert all(line["forget_norm"] > 0 for line in later)
    assert run.state.step == 4


def test_a_skipped_step_is_no_step_without_conflict(tmp_path: Path) -> None:
    run = fp16_run(tmp_path, update=WeightedSum())
    assert run.scale is not None
    scale = run.scale
    run.task.before = lambda step: vars(scale).update(value=2.0**10 if step % 2 else 2.0**60)
    run.train()
    counted, conflicts = 0, dict.fromkeys(("", "/down.attention", "/mid.attention", "/up.attention"), 0)
    for line in read_log(tmp_path):
        counted += line["step"] % 2 == 0
        for suffix in conflicts:
            conflicts[suffix] += line["step"] % 2 == 0 and line[f"cosine{suffix}"] < 0
            share = conflicts[suffix] / counted if counted else None
            assert line.get(f"conflict_share{suffix}") == share
    assert (run.state.step, run.state.cosines) == (4, 2)


def test_fp16_follows_float32_within_its_rounding(tmp_path: Path) -> None:
    given = {"update": WeightedSum(), "optimizer": "sgd", "learning_rate": 0.1}
    full, half = make_run(tmp_path / "full", **given), fp16_run(tmp_path / "half", **given)
    start = weights(full)
    for run in (full, half):
        run.train()
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights(full), start, strict=True)])
    apart = torch.cat([(a - b).flatten() for a, b in zip(weights(full), weights(half), strict=True)])
    assert 0 < apart.norm() < 0.05 * moved.norm()


def test_a_loss_that_no_scale_makes_finite_ends_the_run(tmp_path: Path) -> None:
    run = fp16_run(tmp_path, max_train_steps=40)
    with torch.no_grad():
        run.parameters[0][0, 0] = float("nan")
    with pytest.raises(UserError, match="the loss is not finite"):
        run.train()
    assert len(read_log(tmp_path)) == 16  # from 2^16 to 1


def resumed_after_2(folder: Path, make: Any, **given: Any) -> WatchedRun:
    stopped = make(folder, **given)
    stopped.task.before = lambda step: signal.raise_signal(signal.SIGTERM) if step == 1 else None
    with pytest.raises(Interrupted):
        stopped.train()
    resumed: WatchedRun = make(folder, resume_from_checkpoint="latest", **given)
    resumed.resume()
    resumed.train()
    return resumed


def test_a_resumed_fp16_run_ends_where_a_whole_one_does_bit_for_bit(tmp_path: Path) -> None:
    whole = fp16_run(tmp_path / "whole")
    whole.train()
    resumed = resumed_after_2(tmp_path / "stopped", fp16_run)
    assert_same_bits(weights(resumed), weights(whole))
    assert resumed.scale == whole.scale == LossScale(2.0**16, 4)
    assert read_state(tmp_path / "whole" / "checkpoint-2")["loss_scale"] == {"value": 2.0**16, "finite_steps": 2}


# Average


def test_the_result_is_the_average_of_the_weights_by_hand(tmp_path: Path) -> None:
    run, seen = make_run(tmp_path, ema_decay=0.2), list[list[Tensor]]()
    run.task.before = lambda _: seen.append(weights(run))
    plain = make_run(tmp_path / "plain")
    plain.train()
    run.train()
    history = [*seen[1:], weights(plain)]  # after each of the 4 steps
    average = history[0]  # decay 0 at the first, then min(0.2, (1 + t) / (10 + t)): 2/11, then 0.2
    for decay, theta in zip((2 / 11, 0.2, 0.2), history[1:], strict=True):
        average = [decay * a + (1 - decay) * p for a, p in zip(average, theta, strict=True)]
    for found, expected in zip(weights(run), average, strict=True):
        torch.testing.assert_close(found, expected)
    stored = make_run(tmp_path, ema_decay=0.2, resume_from_checkpoint="latest")
    stored.resume()
    assert_same_bits(weights(stored), weights(plain)), "a checkpoint has the weights that training goes on from"


def test_a_resumed_average_ends_where_a_whole_one_does_bit_for_bit(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", ema_decay=0.9)
    whole.train()
    assert_same_bits(weights(resumed_after_2(tmp_path / "stopped", make_run, ema_decay=0.9)), weights(whole))


# Frozen weights


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_weights_in_autocasts_precision_change_no_bit(dtype: torch.dtype) -> None:
    results = []
    for stored in (False, True):
        torch.manual_seed(0)
        unet: Any = tiny_unet().eval()
        trainable = LoRA(rank=2).select(unet)
        for p in trainable.values():
            nn.init.normal_(p, std=0.1)
        if stored:
            store_frozen(unet, dtype)
            assert unet.conv_in.weight.dtype == dtype
            assert unet.conv_norm_out.weight.dtype == torch.float32
        with torch.autocast("cpu", dtype):
            predicted = unet(torch.ones(2, 4, 8, 8), torch.tensor([10, 900]), torch.ones(2, 12, 16)).sample
        predicted.float().square().sum().backward()
        results.append([predicted.detach(), *(p.grad for p in trainable.values())])
        assert all(p.dtype == torch.float32 for p in trainable.values())
    assert_same_bits(*results)


# Speed


def test_attention_is_torchs_scaled_dot_product() -> None:
    assert {type(processor).__name__ for processor in tiny_unet().attn_processors.values()} == {"AttnProcessor2_0"}


@pytest.mark.slow
def test_a_compiled_run_follows_a_plain_one(tmp_path: Path) -> None:
    plain, compiled = make_run(tmp_path / "plain", max_train_steps=2), make_run(tmp_path / "fast", max_train_steps=2)
    unet: Any = compiled.task.pipeline.unet
    unet.forward = torch.compile(unet.forward)
    for run in (plain, compiled):
        run.train()
    left, right = read_log(tmp_path / "plain"), read_log(tmp_path / "fast")
    assert [line["forget_loss"] for line in right] == pytest.approx([line["forget_loss"] for line in left], rel=1e-3)
    assert compiled.task.evaluations == plain.task.evaluations, "the counter's hook lies outside of what is compiled"


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("no", None)])
def test_the_setting_is_the_precision_of_forward_passes(precision: Any, dtype: torch.dtype | None) -> None:
    settings = TrainingSettings(output_dir=Path("unused"), mixed_precision=precision)
    with autocast(settings, torch.device("cpu")):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == (dtype or torch.float32)


def test_a_bare_no_is_no_though_yaml_reads_it_as_false(tmp_path: Path) -> None:
    run = load(ErasureRun, write_config(tmp_path, tmp_path / "none", mixed_precision="no"), ["mixed_precision=no"])
    assert run.mixed_precision == "no"


@pytest.mark.parametrize(
    ("update", "key"),
    [
        ("{name: lur, mode: exact}", "update.mode"),
        ("{name: alternating_steps, rule: {name: lur, mode: exact}}", "update.rule.mode"),
    ],
)
@pytest.mark.parametrize("given", [{"mixed_precision": "fp16"}, {"compile": "true"}])
def test_second_derivatives_are_refused_where_they_cannot_be_had(
    tmp_path: Path, given: dict[str, str], update: str, key: str
) -> None:
    config = write_config(tmp_path, tmp_path / "none", update=update, **given)
    with pytest.raises(UserError, match=f"^{next(iter(given))}: .* {key} exact"):
        check_run(load(ErasureRun, config, []))
