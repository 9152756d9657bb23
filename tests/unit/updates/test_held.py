"""Which rules stand still where one gradient is 0, as a teacher's loss has it at the teacher's own weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from erase.protocols import UpdateState
from erase.updates import LUR, MGDA, UPDATES, AlternatingSteps, ForgetOnly, RetainOnly, Update, is_held
from erase.updates.alpha import AbsoluteAlpha
from tests.unit.updates.problems import Network, flat
from tests.unit.updates.test_torchjd_aggregator import NAMES, torchjd

RULES: dict[str, Callable[[], Update]] = {
    **{name: kind for name, kind in UPDATES.items() if name != "torchjd"},
    "lur with mgda": lambda: LUR(combine=MGDA()),
    "lur exact with mgda": lambda: LUR(mode="exact", combine=MGDA()),
    "lur alternating with mgda": lambda: LUR(mode="alternating", combine=MGDA()),
    "lur first_order with mgda": lambda: LUR(mode="first_order", combine=MGDA()),
    "lur with mgda, of no length": lambda: LUR(alpha=AbsoluteAlpha(value=0.0), combine=MGDA()),
    "alternating_steps of mgda": lambda: AlternatingSteps(rule=MGDA()),
    "alternating_steps that only retain": lambda: AlternatingSteps(forget_until=0),
    **{f"torchjd {name}": partial(torchjd, name) for name in NAMES},
}
STILL = {"mgda", "lur first_order with mgda", "alternating_steps of mgda", "retain_only"}
STILL |= {"lur with mgda, of no length", "alternating_steps that only retain"}
STILL |= {f"torchjd {name}" for name in ("CAGrad", "MGDA", "PCD")}


@pytest.mark.filterwarnings("ignore")  # TorchJD's solvers
@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_held_where_a_teacher_teaches_itself_if_and_only_if_nothing_moves(name: str) -> None:
    rule, problem, state = RULES[name](), Network().own_teacher(), UpdateState()
    start = flat(problem.parameters).detach().clone()
    for _ in range(4):
        rule(problem.retain, problem.forget, problem.parameters, state)
        problem.descend(rate=0.1)
    stood = torch.equal(flat(problem.parameters).detach(), start)
    assert is_held(rule, retain=0.0, forget=1.0) == stood == (name in STILL)


def test_which_gradient_is_missing_tells_rules_of_one_objective_apart() -> None:
    assert [is_held(ForgetOnly(), *norms) for norms in ((0.0, 1.0), (1.0, 0.0))] == [False, True]
    assert [is_held(RetainOnly(), *norms) for norms in ((0.0, 1.0), (1.0, 0.0))] == [True, False]
    assert [is_held(AlternatingSteps(rule=MGDA()), *norms) for norms in ((0.0, 1.0), (1.0, 0.0))] == [True, False]
    assert not is_held(AlternatingSteps(), 1.0, 0.0)
