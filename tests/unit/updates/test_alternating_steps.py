"""A step to forget, or of a rule, then steps to retain, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.config import build, dump, load, merge
from erase.errors import UserError
from erase.protocols import Diagnostics, UpdateState
from erase.training.settings import TrainingSettings
from erase.updates import LUR, AlternatingSteps, Nash, WeightedSum
from erase.updates.alpha import AbsoluteAlpha, CorrectionAlpha
from tests.properties import assert_parameters_restored
from tests.unit.updates.problems import HEADS, TAILS, Network, bowls, flat_gradient


def steps(count: int) -> tuple[list[Diagnostics], list[list[float]], UpdateState]:
    """So many steps of the bowls from (1, 2), which does not move: g_r = (2, 2), g_f = (-3, 4)."""
    problem, state = bowls(), UpdateState()
    seen, gradients = [], []
    for _ in range(count):
        with assert_parameters_restored(problem.parameters):
            seen.append(AlternatingSteps()(problem.retain, problem.forget, problem.parameters, state))
        gradients.append(flat_gradient(problem.parameters).tolist())
    return seen, gradients, state


def test_it_forgets_first_then_retains_and_so_on() -> None:
    assert steps(4)[1] == [[-3.0, 4.0], [2.0, 2.0], [-3.0, 4.0], [2.0, 2.0]]


def test_each_step_evaluates_its_own_objective_once() -> None:
    problem, state, calls = bowls(), UpdateState(), []
    retain, forget = problem.retain, problem.forget
    for _ in range(3):
        seen = AlternatingSteps()(
            lambda: calls.append("retain") or retain(),
            lambda: calls.append("forget") or forget(),
            problem.parameters,
            state,
        )
        assert seen.evaluations == 1
    assert calls == ["forget", "retain", "forget"]


def test_what_a_step_does_not_look_at_is_none() -> None:
    (first, second), _, _ = steps(2)
    assert (first.forget_loss, first.forget_norm) == (3.5, 5.0)  # (3 + 4) / 2, |(-3, 4)|
    assert (first.retain_loss, first.retain_norm, first.cosine) == (None, None, None)
    assert (second.retain_loss, second.retain_norm) == pytest.approx((3.0, 8**0.5))  # (2 + 4) / 2, |(2, 2)|
    assert (second.forget_loss, second.forget_norm, second.cosine) == (None, None, None)
    assert [[s is None for s in seen.sketches] for seen in (first, second)] == [[True, False], [False, True]]
    assert (first.alpha, first.correction) == (None, None)


def test_the_state_keeps_the_norms_of_both() -> None:
    assert steps(1)[2] == UpdateState(step=1, forget_norm=5.0)
    state = steps(3)[2]
    assert (state.step, state.conflicts, state.cosines, state.forget_norm) == (3, 0, 0, 5.0)
    assert state.retain_norm == pytest.approx(8**0.5)


def test_a_step_s_objective_follows_from_its_number_alone() -> None:
    assert bowls().gradient(AlternatingSteps(), step=6).tolist() == [-3.0, 4.0]
    assert bowls().gradient(AlternatingSteps(), step=7).tolist() == [2.0, 2.0]


def test_it_needs_no_second_buffer() -> None:
    assert AlternatingSteps().buffers == 0


def forgetting(rule: AlternatingSteps, count: int) -> list[bool]:
    """At which of the first steps the forget gradient is left."""
    return [bowls().gradient(rule, step).tolist() == [-3.0, 4.0] for step in range(count)]


def test_so_many_retain_steps_follow_each_forget_step() -> None:
    assert forgetting(AlternatingSteps(retain_steps=2), 7) == [True, False, False, True, False, False, True]
    assert forgetting(AlternatingSteps(retain_steps=5), 13) == [True] + [False] * 5 + [True] + [False] * 5 + [True]


def test_from_a_given_step_on_it_only_retains() -> None:
    assert forgetting(AlternatingSteps(forget_until=3), 7) == [True, False, True, False, False, False, False]
    assert forgetting(AlternatingSteps(forget_until=0), 3) == [False] * 3
    assert forgetting(AlternatingSteps(retain_steps=2, forget_until=3), 7) == [True] + [False] * 6


def test_no_retain_step_and_a_negative_end_are_refused() -> None:
    with pytest.raises(ValueError, match="retain_steps"):
        AlternatingSteps(retain_steps=0)
    with pytest.raises(ValueError, match="forget_until"):
        AlternatingSteps(forget_until=-1)


@pytest.mark.parametrize("rule", [AlternatingSteps(), AlternatingSteps(retain_steps=4, forget_until=11)])
def test_it_says_how_often_each_objective_was_looked_at(rule: AlternatingSteps) -> None:
    done = forgetting(rule, 20)
    assert [rule.looked(step) for step in range(21)] == [
        (step - sum(done[:step]), sum(done[:step])) for step in range(21)
    ]


RULES: dict[str, WeightedSum | Nash | LUR] = {
    "weighted_sum": WeightedSum(),
    "nash": Nash(),
    "lur": LUR(mode="alternating", alpha=AbsoluteAlpha(value=0.1), measure_every=0),
}


@pytest.mark.parametrize("turn", [HEADS, TAILS])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_the_step_that_forgets_and_counts_its_own(name: str, turn: int) -> None:
    """LUR's coin shows by which count it is tossed."""
    steps = AlternatingSteps(retain_steps=2, rule=RULES[name])
    expected = Network().problem().gradient(RULES[name], turn)
    assert torch.equal(Network().problem().gradient(steps, 3 * turn), expected)
    assert not torch.equal(Network().problem().gradient(steps, 3 * (HEADS + TAILS - turn)), expected) or name != "lur"


def test_the_steps_after_a_rule_s_retain() -> None:
    """g_r + g_f = (-1, 6), then g_r twice."""
    rule = AlternatingSteps(retain_steps=2, rule=WeightedSum())
    found = [bowls().gradient(rule, step).tolist() for step in range(4)]
    assert found == [[-1.0, 6.0], [2.0, 2.0], [2.0, 2.0], [-1.0, 6.0]]
    assert [bowls().run(rule, step).evaluations for step in range(4)] == [2, 1, 1, 2]


def test_an_alpha_is_found_by_the_rule_s_own_steps() -> None:
    """LUR looks for its alpha before the first, and learns from each; steps that only retain teach nothing."""
    problem, state = Network().problem(), UpdateState()
    rule = AlternatingSteps(retain_steps=3, rule=LUR(alpha=CorrectionAlpha(max_displacement=1.0)))
    spent, alphas = [], []
    for _ in range(9):
        spent.append(rule(problem.retain, problem.forget, problem.parameters, state).evaluations)
        alphas.append(state.alpha)
        problem.descend(0.05)
    assert (spent, state.step) == ([3 + 3, 1, 1, 1, 3, 1, 1, 1, 3], 9)
    assert len(set(alphas[:4])) == len(set(alphas[4:8])) == 1
    assert len({alphas[0], alphas[4], alphas[8]}) == 3


def test_what_was_looked_at_is_told_of_both() -> None:
    """Where a rule takes the step, that step looks at what is retained as well."""
    assert [AlternatingSteps(retain_steps=2).looked(step) for step in range(5)] == [
        (0, 0),
        (0, 1),
        (1, 1),
        (2, 1),
        (2, 2),
    ]
    ruled = AlternatingSteps(retain_steps=2, rule=WeightedSum(), forget_until=3)
    assert [ruled.looked(step) for step in range(5)] == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_rule_s_buffers_are_its_own() -> None:
    assert [AlternatingSteps(rule=rule).buffers for rule in (WeightedSum(), Nash(), LUR())] == [0, 1, 1]


def test_a_rule_is_chosen_by_name_and_survives_being_written() -> None:
    given = {"output_dir": "run", "update": {"name": "alternating_steps", "retain_steps": 4}}
    made = build(TrainingSettings, merge(given, ["update.rule.name=lur", "update.rule.combine=nash"]))
    assert made.update == AlternatingSteps(retain_steps=4, rule=LUR(combine=Nash()))
    assert build(TrainingSettings, dump(made)) == made
    with pytest.raises(UserError, match=r"update\.rule\.name: found 'alternating_steps'; known: lur, weighted_sum"):
        build(TrainingSettings, merge(given, ["update.rule.name=alternating_steps"]))


def test_a_rule_s_bare_name_and_its_keys_go_together_in_any_order() -> None:
    words = ["output_dir=run", "update=alternating_steps", "update.rule=lur", "update.rule.combine=nash"]
    for order in (words, words[::-1]):
        assert load(TrainingSettings, None, order).update == AlternatingSteps(rule=LUR(combine=Nash()))
    assert load(TrainingSettings, None, [*words[:3], "update.rule=null"]).update == AlternatingSteps()
    with pytest.raises(UserError, match=r"update\.rule\.name pcgrad has none; it belongs to lur"):
        load(TrainingSettings, None, [*words[:2], "update.rule=pcgrad", "update.rule.mode=exact"])


def test_a_rule_s_bare_name_drops_the_keys_of_the_file_s_rule(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output_dir: run\nupdate: {name: alternating_steps, rule: {name: lur, mode: exact}}\n")
    assert load(TrainingSettings, file, ["update.rule=nash"]).update == AlternatingSteps(rule=Nash())
    assert load(TrainingSettings, file, ["update.rule=lur"]).update == AlternatingSteps(rule=LUR(mode="exact"))
