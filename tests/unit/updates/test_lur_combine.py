"""A combination in place of LUR's sum: chosen by name, equal to the rule by hand on the look-ahead gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erase.config import build, dump, load, merge
from erase.errors import UserError
from erase.training.settings import TrainingSettings
from erase.updates import LUR, MGDA, CAGrad, GradientProjection, Nash, PCGrad, TorchJD, UPGrad, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from erase.updates.gram import GramRule
from tests.properties import assert_parameters_restored, assert_same_bits
from tests.unit.updates.opposed import Opposed
from tests.unit.updates.pairs import weights_of
from tests.unit.updates.problems import (
    BRANCHES,
    FAILURES,
    HEADS,
    TAILS,
    BrokenError,
    Network,
    break_at,
    flat,
)

RULES: list[GramRule] = [PCGrad(), UPGrad(), MGDA(), CAGrad(c=0.3), Nash(), GradientProjection()]
EVERY: list[Any] = [*RULES, TorchJD()]
ALPHA = 0.1


def lur(mode: Any, combine: Any = None, alpha: float = ALPHA) -> LUR:
    given: dict[str, Any] = {} if combine is None else {"combine": combine}
    return LUR(mode=mode, alpha=AbsoluteAlpha(value=alpha), measure_every=0, **given)


def settings(*overrides: str, **update: Any) -> TrainingSettings:
    return build(TrainingSettings, merge({"output_dir": "run", "update": {"name": "lur"} | update}, overrides))


def problem_of(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        settings(*overrides)
    (problem,) = caught.value.problems
    return problem


def test_what_lur_holds_is_with_its_combination() -> None:
    """One copy of the parameters; `exact` has both gradients already, so that a Gram rule adds nothing."""
    whole = TorchJD(aggregator="ConFIG").buffers
    assert [lur("chained", combine).buffers for combine in (None, Nash(), TorchJD(aggregator="ConFIG"))] == [
        1,
        2,
        1 + whole,
    ]
    assert [lur("exact", combine).buffers for combine in (None, Nash())] == [4, 4]


def sides(mode: str, step: int, alpha: float) -> tuple[Tensor, Tensor]:
    """What stands for the retain and for the forget gradient, by autograd in float64."""
    network = Opposed()
    theta = flat(network.parameters()).detach()
    retain, forget = torch.func.grad(network.retain), torch.func.grad(network.forget)
    kept = retain(theta)
    if mode == "alternating":
        if step == HEADS:
            return kept, forget(theta - 2 * alpha * kept)
        return retain(theta - 2 * alpha * forget(theta)), forget(theta)
    ahead = forget(theta - alpha * kept)
    if mode == "first_order":
        return kept, ahead
    if mode == "chained":
        return retain(theta - alpha * ahead), ahead
    curved = torch.func.grad(lambda t: torch.dot(retain(t), ahead))(theta)
    return kept - alpha * curved, ahead


# Chosen


def test_a_name_alone_chooses_a_combination() -> None:
    assert settings("update.combine=pcgrad").update == LUR(combine=PCGrad())
    assert settings(combine="mgda").update == LUR(combine=MGDA())
    assert settings("update.combine=nash", combine={"name": "cagrad", "c": 0.3}).update == LUR(combine=Nash())


def test_a_block_chooses_a_combination_with_its_values(tmp_path: Any) -> None:
    assert settings(combine={"name": "cagrad", "c": 0.3}).update == LUR(combine=CAGrad(c=0.3))
    assert settings("update.combine.name=cagrad", "update.combine.c=0.3").update == LUR(combine=CAGrad(c=0.3))
    file = tmp_path / "run.yaml"
    file.write_text("output_dir: run\nupdate: {mode: exact, combine: {name: torchjd, aggregator: MGDA}}\n")
    assert load(TrainingSettings, file).update == LUR(mode="exact", combine=TorchJD(aggregator="MGDA"))
    assert load(TrainingSettings, file, ["update.combine=upgrad"]).update == LUR(mode="exact", combine=UPGrad())


@pytest.mark.parametrize("combine", ["weighted_sum", *(rule.name for rule in EVERY)])
def test_settings_with_a_combination_survive_being_written(combine: str) -> None:
    made = settings(f"update.combine={combine}")
    assert dump(made)["update"]["combine"]["name"] == combine
    assert build(TrainingSettings, dump(made)) == made


@pytest.mark.parametrize("name", ["magic", "lur", "alternating_steps"])
def test_what_is_no_combination_is_refused_with_the_known_ones(name: str) -> None:
    problem = problem_of(f"update.combine={name}")
    assert problem.startswith(f"update.combine.name: found '{name}'; known: weighted_sum, pcgrad, upgrad, mgda")


def test_a_combination_s_wrong_value_is_named() -> None:
    assert problem_of("update.combine.name=cagrad", "update.combine.c=-1").startswith("update.combine.c: found -1")
    assert "update.combine.d: unknown key" in problem_of("update.combine.name=cagrad", "update.combine.d=1")


# The sum


@pytest.mark.parametrize("network", [Network, Opposed])
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_the_weighted_sum_is_the_mode_without_a_combination(mode: str, step: int, network: type[Network]) -> None:
    plain = network().problem(3).gradient(lur(mode), step)
    assert_same_bits([network().problem(3).gradient(lur(mode, WeightedSum()), step)], [plain])
    assert lur(mode, WeightedSum()) == lur(mode)


@pytest.mark.parametrize("rule", [PCGrad(), GradientProjection()])
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_without_conflict_a_projection_is_the_mode_itself(mode: str, step: int, rule: GramRule) -> None:
    """Bit for bit: w g_r + g_f with w = 1, of whole batches, from two buffers as from one."""
    plain = Network().problem()
    assert (plain.run(lur(mode), step).cosine or 0.0) > 0.1
    expected = plain.gradient(lur(mode), step)
    assert_same_bits([Network().problem().gradient(lur(mode, rule), step)], [expected])


def test_only_a_combination_takes_a_second_buffer() -> None:
    assert [lur(mode).buffers for mode in ("chained", "exact", "alternating", "first_order")] == [1, 4, 1, 1]
    assert [lur(mode, PCGrad()).buffers for mode in ("chained", "exact", "alternating", "first_order")] == [2, 4, 2, 2]


# The rule


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.name)
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_without_look_ahead_it_is_the_rule_itself(mode: str, step: int, rule: Any) -> None:
    expected = Opposed().problem().gradient(rule)
    found = Opposed().problem().gradient(lur(mode, rule, alpha=0.0), step)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_it_is_the_rule_by_hand_on_the_look_ahead_gradients(mode: str, step: int, rule: GramRule) -> None:
    retain, forget = sides(mode, step, ALPHA)
    w_retain, w_forget = weights_of(rule, retain, forget)
    found = Opposed().problem(2).gradient(lur(mode, rule), step)
    torch.testing.assert_close(found, w_retain * retain + w_forget * forget, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_the_gradients_conflict_where_the_rules_are_tried(mode: str, step: int) -> None:
    """So that a projection and a sum are not the same, nor the two sides alike."""
    projected = Opposed().problem().gradient(lur(mode, PCGrad()), step)
    assert (projected - Opposed().problem().gradient(lur(mode), step)).norm() > 0.1
    one_sided = Opposed().problem().gradient(lur(mode, GradientProjection()), step)
    assert (one_sided - projected).norm() > 0.1


def test_the_coin_does_not_change_which_gradient_gives_way() -> None:
    """Forget first: the retain gradient is the second, and is still the one that is spared."""
    for step in (HEADS, TAILS):
        retain, _ = sides("alternating", step, ALPHA)
        found = Opposed().problem().gradient(lur("alternating", GradientProjection()), step)
        assert torch.dot(found, retain) > 0


@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_diagnostics_do_not_depend_on_the_combination(mode: str, step: int) -> None:
    plain, combined = (Opposed().problem().run(lur(mode, rule), step) for rule in (None, Nash()))
    for name, value in plain.numbers().items():
        assert combined.numbers()[name] == (value if value is None else pytest.approx(value)), name


# The parameters


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.name)
@pytest.mark.parametrize(("mode", "step"), BRANCHES)
def test_parameters_are_restored_to_the_last_bit(mode: str, step: int, rule: Any) -> None:
    problem = Opposed(torch.float32).problem()
    with assert_parameters_restored(problem.parameters):
        problem.run(lur(mode, rule), step)


@pytest.mark.parametrize("rule", [PCGrad(), TorchJD(aggregator="ConFIG")], ids=lambda rule: rule.name)
@pytest.mark.parametrize(("mode", "step", "nth"), FAILURES)
def test_parameters_are_restored_when_an_evaluation_raises(mode: str, step: int, nth: int, rule: Any) -> None:
    problem = Opposed(torch.float32).problem(micro_batches=2)
    break_at(problem, nth)
    with assert_parameters_restored(problem.parameters), pytest.raises(BrokenError):
        problem.run(lur(mode, rule), step)
