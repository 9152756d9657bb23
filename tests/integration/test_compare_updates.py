"""The comparison of the update rules is fair by construction: one grid, one budget, seeds of its own for tuning."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from erase.errors import UserError
from erase.updates import LUR, UPDATES
from pipelines import compare_updates as compare
from pipelines.compare_updates_figures import table

CELLS = list(itertools.product(compare.LOSSES, compare.PARAMETERS, compare.RULES))


def result(cell: tuple[str, str, str], setting: dict[str, float], ua: float, ira: float = 1.0) -> dict[str, Any]:
    loss, parameters, rule = cell
    scores = {"UA": ua, "IRA": ira, "CRA_kept": 1.0, "CRA_erased": 1.0, "none_erased": 0.0}
    labels = {"loss": loss, "parameters": parameters, "rule": rule, "setting": setting}
    return labels | {"erased": {"scores": scores}, "gradients": {"final_cosine": 0.25}}


def test_every_rule_is_compared() -> None:
    builtin = set(UPDATES) - {"torchjd", "upgrad"}  # a door to others, not a rule; PCGrad, where there are two
    builtin -= {"retain_only", "forget_only"}  # of one objective
    assert builtin <= set(compare.RULES)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_rule_has_the_same_grid_and_the_same_budget(cell: tuple[str, str, str]) -> None:
    loss, parameters, rule = cell
    without_alpha = [{k: v for k, v in s.items() if k != "ratio"} for s in compare.grid(rule, loss, parameters)]
    reference = list(compare.grid("weighted_sum", loss, parameters))
    assert {tuple(s.values()) for s in without_alpha} == {tuple(s.values()) for s in reference}
    trials = list(compare.trials("tune", [cell]))
    assert len({trial.name for trial in trials}) == len(trials)
    for trial in (trials[0], trials[-1]):
        run = trial.run(Path("runs/trial"))
        assert run.max_train_steps * compare.RULES[rule][0] == compare.BUDGET
        assert (run.forget_loss.name, run.parameters.name) == (loss, parameters)
        assert run.update.name == ("lur" if rule.startswith("lur") else rule)
    if isinstance(run.update, LUR):
        assert run.update.combine.name == ("pcgrad" if rule == "lur_pcgrad" else "weighted_sum")


def test_tuning_shares_no_seed_with_the_comparison() -> None:
    cell = CELLS[0]
    setting = next(compare.grid(cell[2], cell[0], cell[1]))
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
    assert compare.tuned(found, cell) == settings[1]


def test_a_cell_that_is_not_tuned_is_refused() -> None:
    with pytest.raises(UserError, match="negative_guidance, full, mgda is not tuned yet; run --stage tune"):
        compare.tuned([], ("negative_guidance", "full", "mgda"))


def test_the_table_counts_runs_that_diverged() -> None:
    cell = ("gradient_ascent", "full", "pcgrad")
    setting = {"learning_rate": 1e-4, "forget_weight": 0.01}
    rows = table(
        [result(cell, setting, 1.0), result(cell, setting, 0.5), result(cell, setting, 1.0) | {"erased": None}]
    )
    assert "| pcgrad | 3, 1 diverged | 75.0 ± 35.4 | 100.0 ± 0.0 |" in rows
    assert "learning_rate 0.0001, forget_weight 0.01 |" in rows
