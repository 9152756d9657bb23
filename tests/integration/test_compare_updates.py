"""The comparison of the update rules is fair by construction: one grid, one budget, seeds of its own for tuning."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from erase.errors import UserError
from erase.evaluation.trials import Trial, TrialStore
from erase.protocols import UpdateState
from erase.updates import LUR, UPDATES
from pipelines import compare_updates as compare
from pipelines.compare_updates_figures import table
from tests.unit.updates.problems import bowls

CELLS = [
    *itertools.product(compare.LOSSES, compare.PARAMETERS, ["weighted_sum"]),
    *(("gradient_ascent", "full", rule) for rule in compare.RULES if rule != "weighted_sum"),
]


def result(cell: tuple[str, str, str], setting: dict[str, float], ua: float, ira: float = 1.0) -> dict[str, Any]:
    loss, parameters, rule = cell
    scores = {"UA": ua, "IRA": ira, "CRA_kept": 1.0, "CRA_erased": 1.0, "none_erased": 0.0}
    labels = {"loss": loss, "parameters": parameters, "rule": rule, "setting": setting}
    return labels | {"target": "star", "erased": {"scores": scores}, "gradients": {"final_cosine": 0.25}}


class Stored(TrialStore):
    """A store whose results are given; each counts as of the settings that are asked for."""

    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self.found = found

    def results(self) -> dict[str, dict[str, Any]]:
        return self.found

    def has(self, trial: Trial) -> bool:
        return trial.name in self.found


def test_every_rule_is_compared() -> None:
    builtin = set(UPDATES) - {"torchjd", "upgrad"}  # a door to others, not a rule; PCGrad, where there are two
    builtin -= {"retain_only", "forget_only"}  # of one objective
    assert builtin <= set(compare.RULES)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_rule_has_a_grid_of_six_that_are_not_the_same(cell: tuple[str, str, str]) -> None:
    loss, parameters, rule = cell
    trials = list(compare.trials("tune", [cell]))
    assert len({trial.name for trial in trials}) == 6
    runs = [trial.run(Path("runs/trial")) for trial in trials]
    for run in runs:
        assert (run.forget_loss.name, run.parameters.name) == (loss, parameters)
        assert run.update.name == ("lur" if rule.startswith("lur") else rule)
        assert run.probe_every and run.max_train_steps // run.probe_every >= 4
        if isinstance(run.update, LUR):
            assert run.update.combine.name == ("pcgrad" if rule == "lur_pcgrad" else "weighted_sum")
    effective = {(run.learning_rate, run.forget_weight if rule != "nash" else 0.0, repr(run.update)) for run in runs}
    assert len(effective) == 6


@pytest.mark.parametrize("rule", compare.RULES)
def test_every_rule_spends_the_same_budget(rule: str) -> None:
    """Counted by the rule itself; no further step would fit."""
    (trial, *_) = compare.trials("tune", [("gradient_ascent", "full", rule)])
    run, problem, state = trial.run(Path("runs/trial")), bowls(), UpdateState()
    steps = range(run.max_train_steps + 1)
    spent = [run.update(problem.retain, problem.forget, problem.parameters, state).evaluations for _ in steps]
    assert sum(spent[:-1]) <= compare.BUDGET < sum(spent)


def test_tuning_shares_no_seed_with_the_comparison() -> None:
    cell = CELLS[0]
    setting = compare.grid(cell[2], cell[0], cell[1])[0]
    tuning = [
        compare.labelled(stage, cell, "circle", seed, setting) for stage in ("tune", "weights") for seed in range(3)
    ]
    final = [compare.labelled("compare", cell, "circle", seed, setting) for seed in compare.SEEDS]
    assert {t.seed for t in tuning}.isdisjoint(t.seed for t in final)
    assert {t.evaluation_seed for t in tuning}.isdisjoint(t.evaluation_seed for t in final)


def test_the_best_of_a_grid_forgets_and_keeps() -> None:
    cell = ("negative_guidance", "full", "weighted_sum")
    settings = list(compare.grid("weighted_sum", "negative_guidance", "full"))
    found = [result(cell, setting, ua=0.5) for setting in settings]
    found[1] = result(cell, settings[1], ua=0.9, ira=0.95)
    found[2] = result(cell, settings[2], ua=1.0, ira=0.1)
    found[3] = result(cell, settings[3], ua=1.0) | {"erased": None}  # diverged
    names = [trial.name for trial in compare.trials("tune", [cell])]
    stored = dict(zip(names, found, strict=True))
    assert compare.tuned(Stored(stored), cell) == settings[1]
    del stored[names[-1]]
    with pytest.raises(UserError, match="not tuned yet"):
        compare.tuned(Stored(stored), cell)


def test_a_cell_that_is_not_tuned_is_refused() -> None:
    with pytest.raises(UserError, match="negative_guidance, full, mgda is not tuned yet; run --stage tune"):
        compare.tuned(Stored({}), ("negative_guidance", "full", "mgda"))


def test_the_table_counts_runs_that_diverged() -> None:
    cell = ("gradient_ascent", "full", "pcgrad")
    setting = {"learning_rate": 1e-4, "forget_weight": 0.01}
    rows = table(
        [result(cell, setting, 1.0), result(cell, setting, 0.5), result(cell, setting, 1.0) | {"erased": None}]
    )
    assert "| rule | runs | star: UA | star: kept | UA |" in rows
    assert "| pcgrad | 3, 1 diverged | 75.0 ± 35.4 | 100.0 ± 0.0 | 75.0 | 100.0 |" in rows
    assert "learning_rate 0.0001, forget_weight 0.01 |" in rows


def test_the_table_keeps_targets_apart() -> None:
    cell = ("gradient_ascent", "full", "pcgrad")
    setting = {"learning_rate": 1e-4, "update.alpha.ratio": 0.3}
    circles = [result(cell, setting, ua) | {"target": "circle"} for ua in (0.1, 0.3)]
    rows = table([result(cell, setting, 1.0), *circles])
    assert "| pcgrad | 3 | 100.0 | 100.0 | 20.0 ± 14.1 | 100.0 ± 0.0 | 46.7 |" in rows
    assert "| learning_rate 0.0001, ratio 0.3 |" in rows


@pytest.mark.parametrize("stage", ["tune", "compare", "weights"])
def test_what_is_stored_is_of_the_settings_that_are_shipped(stage: str, tmp_path: Path) -> None:
    """A result of an older grid is not taken for one of today's."""
    store = TrialStore(compare.STORE / stage, tmp_path)
    for name, found in store.results().items():
        cell = (found["loss"], found["parameters"], found["rule"])
        assert any(trial.name == name and store.has(trial) for trial in compare.trials(stage, [cell])), name
