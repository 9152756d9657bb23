"""The optimizers' settings, and the learning rate step by step."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from erase.errors import UserError
from erase.training import optimization
from erase.training.optimization import make_optimizer, make_scheduler
from erase.training.settings import TrainingSettings


def settings(**given: Any) -> TrainingSettings:
    common: dict[str, Any] = {"output_dir": Path("unused"), "learning_rate": 0.1}
    return TrainingSettings(**(common | given))


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0]))


def rates(steps: int, **given: Any) -> list[float]:
    chosen, p = settings(**given), parameter()
    optimizer = make_optimizer(chosen, [p])
    scheduler, found = make_scheduler(chosen, optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        p.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
    return found


def after_steps(gradients: list[list[float]], **given: Any) -> list[float]:
    p = parameter()
    optimizer = make_optimizer(settings(**given), [p])
    for gradient in gradients:
        p.grad = torch.tensor(gradient)
        optimizer.step()
    return p.tolist()


def test_a_constant_rate_stays() -> None:
    assert rates(4) == [0.1] * 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant_with_warmup", [0.0, 0.05, 0.1, 0.1, 0.1, 0.1]),
        ("linear", [0.0, 0.05, 0.1, 0.075, 0.05, 0.025]),
        ("cosine", [0.0, 0.05, 0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0.05 * (1 - 0.5**0.5)]),
    ],
)
def test_a_rate_rises_over_the_warmup_and_then_takes_its_course(name: str, expected: list[float]) -> None:
    found = rates(6, lr_scheduler=name, lr_warmup_steps=2, max_train_steps=6)
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_falling_rate_starts_at_its_peak_and_would_reach_0_after_the_last_step() -> None:
    assert rates(5, lr_scheduler="linear", max_train_steps=4) == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0])


def test_sgd_is_the_step_worked_by_hand() -> None:
    # momentum 0.5: 1 - 0.1 * 2 - 0.1 * (0.5 * 2 + 1); the second entry has no gradient
    found = after_steps([[2.0, 0.0], [1.0, 0.0]], optimizer="sgd", adam_beta1=0.5)
    assert found == pytest.approx([0.6, -2.0])


def test_decay_is_decoupled_in_adamw_and_part_of_the_gradient_in_adam() -> None:
    given = {"adam_weight_decay": 0.5, "adam_epsilon": 1e-12}
    # adamw: p (1 - 0.1 * 0.5) - 0.1 sign(gradient); adam: sign(gradient + 0.5 p)
    assert after_steps([[1.0, 1.0]], optimizer="adamw", **given) == pytest.approx([0.85, -2.0])
    assert after_steps([[0.0, 0.0]], optimizer="adamw", **given) == pytest.approx([0.95, -1.9])
    assert after_steps([[0.0, 0.0]], optimizer="adam", **given) == pytest.approx([0.9, -1.9])


def test_every_setting_arrives() -> None:
    given = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_weight_decay": 0.01, "adam_epsilon": 1e-6}
    for name, kind in (("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        optimizer = make_optimizer(settings(optimizer=name, **given), [parameter()])
        (group,) = optimizer.param_groups
        assert type(optimizer) is kind
        assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
        if name == "sgd":
            assert group["momentum"] == 0.8
        else:
            assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-6)


def test_without_its_library_8_bit_is_refused_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"^optimizer: adamw8bit needs bitsandbytes; pip install 'erase\[8bit\]'"):
        make_optimizer(settings(optimizer="adamw8bit"), [parameter()])


@pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed; pip install 'erase[8bit]'"
)
def test_8_bit_moments_move_as_adamws_within_their_rounding() -> None:
    found = {}
    for name in ("adamw", "adamw8bit"):
        p = nn.Parameter(torch.zeros(8192))
        optimizer = make_optimizer(settings(optimizer=name, learning_rate=0.1), [p])
        for step in range(5):
            p.grad = torch.randn(8192, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        found[name] = p.detach()
        if name == "adamw8bit":
            assert optimizer.state[p]["state1"].dtype == torch.uint8
    difference = (found["adamw"] - found["adamw8bit"]).norm() / found["adamw"].norm()
    assert 0 < difference < 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"adam_beta1": 1.0},
        {"adam_epsilon": 0.0},
        {"max_train_steps": 0},
        {"max_grad_norm": -1.0},
        {"lr_scheduler": "polynomial"},
        {"optimizer": "lion"},
        {"forget_weight": 0.0},
        {"seed": -1},
        {"checkpoints_total_limit": 0},
        {"mixed_precision": "fp8"},
        {"ema_decay": 1.0},
        {"ema_decay": 0.0},
    ],
)
def test_settings_are_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        settings(**wrong)
