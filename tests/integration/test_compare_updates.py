"""The comparison of the update rules is fair by construction: one search, one budget, seeds of its own for tuning."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erase.errors import UserError
from erase.evaluation.trials import Trial, TrialStore
from erase.protocols import UpdateState
from erase.updates import LUR, UPDATES
from pipelines import compare_updates as compare
from pipelines.compare_updates_figures import (
    SUM,
    merit,
    merits,
    panels_of,
    pareto,
    summary,
    table,
    weight_table,
    weights,
    write,
)
from pipelines.search import Settings, coordinate_search
from tests.launch import ROOT
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
    builtin -= {"mgda"}  # which stands still
    builtin -= {"retain_only", "forget_only"}  # of one objective
    assert builtin <= set(compare.RULES)


def tries(cell: tuple[str, str, str], score: Callable[[Trial], float]) -> dict[str, Trial]:
    """What tuning looks at, by name."""
    seen: dict[str, Trial] = {}

    def loss(trial: Trial) -> float:
        seen[trial.name] = trial
        return -score(trial)

    compare.chosen(cell, loss)
    return seen


def setting_of(trial: Trial) -> Settings:
    return dict(trial.labels)["setting"]


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_rule_has_eight_tries_that_are_not_the_same(cell: tuple[str, str, str]) -> None:
    loss, parameters, rule = cell
    seen = tries(cell, lambda trial: setting_of(trial).get("forget_weight", 1.0)).values()
    runs = [trial.run(Path("runs/trial")) for trial in seen if trial.target == "circle"]
    for run in runs:
        assert (run.forget_loss.name, run.parameters.name) == (loss, parameters)
        assert run.update.name == ("lur" if rule.startswith("lur") else rule)
        assert run.probe_every and run.max_train_steps // run.probe_every >= 4
        if isinstance(run.update, LUR):
            assert run.update.combine.name == ("pcgrad" if rule == "lur_pcgrad" else "weighted_sum")
    assert sorted(trial.target for trial in seen if trial.target != "circle") == 3 * ["red"] + 3 * ["star"]
    effective = {(run.learning_rate, run.forget_weight if rule != "nash" else 0.0, repr(run.update)) for run in runs}
    assert len(effective) == 8


@pytest.mark.parametrize("rule", compare.RULES)
def test_every_rule_spends_the_same_budget(rule: str) -> None:
    """Counted by the rule itself, LUR's search for alpha too; no further step would fit."""
    cell = ("gradient_ascent", "full", rule)
    trial = compare.attempt(cell, compare.search(cell, lambda _: 0.0))
    run, problem, state = trial.run(Path("runs/trial")), bowls(), UpdateState()
    steps = range(run.max_train_steps + 1)
    spent = [run.update(problem.retain, problem.forget, problem.parameters, state).evaluations for _ in steps]
    assert sum(spent[:-1]) <= compare.BUDGET < sum(spent)


def test_tuning_shares_no_seed_with_the_comparison() -> None:
    cell = CELLS[0]
    setting = compare.search(cell, lambda _: 0.0)
    tuning = [compare.labelled("weights", cell, "circle", seed, setting) for seed in range(3)]
    tuning += tries(cell, lambda _: 0.0).values()
    final = [compare.labelled("compare", cell, "circle", seed, setting) for seed in compare.SEEDS]
    assert {t.seed for t in tuning}.isdisjoint(t.seed for t in final)
    assert {t.evaluation_seed for t in tuning}.isdisjoint(t.evaluation_seed for t in final)


def test_the_best_of_a_search_forgets_and_keeps() -> None:
    """The weight, then the rate, then a number of the rule's own; ruin and divergence lose."""
    cell = ("gradient_ascent", "full", "cagrad")
    at = {"learning_rate": 1.5e-4, "forget_weight": 0.02, "update.c": 0.2}

    def measured(setting: Settings) -> dict[str, Any]:
        if setting["learning_rate"] > 5e-4:
            return result(cell, setting, ua=1.0) | {"erased": None}
        if setting["forget_weight"] > 0.5:
            return result(cell, setting, ua=1.0, ira=0.1)
        return result(cell, setting, ua=0.5 + sum(setting[key] == value for key, value in at.items()) / 10)

    seen = tries(cell, lambda trial: merit(measured(setting_of(trial))))
    stored = {name: measured(setting_of(trial)) for name, trial in seen.items()}
    assert compare.tuned(Stored(stored), cell) == at
    del stored[next(iter(stored))]
    with pytest.raises(UserError, match="not tuned yet"):
        compare.tuned(Stored(stored), cell)


def test_what_is_best_on_one_target_alone_is_not_chosen() -> None:
    cell = ("gradient_ascent", "full", "pcgrad")

    def loss(trial: Trial) -> float:
        setting = setting_of(trial)
        at = (setting["learning_rate"], setting["forget_weight"])
        if trial.target != "circle":
            return -float(at == (3e-4, 0.02))
        return {(3e-4, 0.6): -1.0, (3e-4, 0.02): -0.9}.get(at, 0.0)

    assert compare.chosen(cell, loss)["forget_weight"] == 0.02


def test_a_coordinate_search_keeps_the_first_of_equals_and_the_best_so_far() -> None:
    axes = [("x", lambda _: (1, 2, 3)), ("y", lambda _: (4, 5)), ("x", lambda best: (best - 0.5, best + 0.5))]
    seen = []

    def loss(setting: dict[str, float]) -> float:
        seen.append(tuple(setting.values()))
        return abs(setting["x"] - 2.4)

    assert coordinate_search({"x": 9, "y": 0}, axes, loss) == {"x": 2.5, "y": 0}
    assert seen == [(1, 0), (2, 0), (3, 0), (2, 4), (2, 5), (1.5, 0), (2.5, 0)]


def test_a_cell_that_is_not_tuned_is_refused() -> None:
    with pytest.raises(UserError, match="negative_guidance, full, nash is not tuned yet; run --stage tune"):
        compare.tuned(Stored({}), ("negative_guidance", "full", "nash"))


def test_a_run_that_diverged_is_counted_and_has_kept_nothing() -> None:
    cell = ("gradient_ascent", "full", "pcgrad")
    setting = {"learning_rate": 1e-4, "forget_weight": 0.01}
    rows = table(
        [result(cell, setting, 1.0), result(cell, setting, 0.5), result(cell, setting, 1.0) | {"erased": None}]
    )
    assert "| rule | runs | star: UA | star: kept | UA |" in rows
    assert "| pcgrad | 3, 1 diverged | 83.3 ± 28.9 | 66.7 ± 57.7 | 83.3 | 66.7 |" in rows
    assert "learning_rate 0.0001, forget_weight 0.01 |" in rows


def test_the_table_keeps_targets_apart() -> None:
    cell = ("gradient_ascent", "full", "pcgrad")
    setting = {"learning_rate": 1e-4, "update.alpha.ratio": 0.3}
    circles = [result(cell, setting, ua) | {"target": "circle"} for ua in (0.1, 0.3)]
    rows = table([result(cell, setting, 1.0), *circles])
    assert "| pcgrad | 3 | 100.0 | 100.0 | 20.0 ± 14.1 | 100.0 ± 0.0 | 46.7 |" in rows
    assert "| learning_rate 0.0001, ratio 0.3 |" in rows


def test_the_summary_has_the_best_merit_first_and_a_diverged_run_has_none() -> None:
    setting = {"learning_rate": 1e-4}
    sums = [result(("gradient_ascent", "full", SUM), setting, ua) | {"seed": s} for s, ua in enumerate((1.0, 0.5))]
    nash = [
        result(("gradient_ascent", "full", "nash"), setting, 1.0) | {"seed": 1},
        {**sums[0], "rule": "nash", "erased": None},
    ]
    assert summary([*nash, *sums]).splitlines() == [
        "| rule | star: UA | star: kept | merit | merit over the sum's | final cosine |",
        "|---|---|---|---|---|---|",
        "| weighted_sum | 75.0 ± 35.4 | 100.0 ± 0.0 | 87.5 ± 17.7 | – | 0.25 ± 0.00 |",
        "| nash | 100.0 ± 0.0 | 50.0 ± 70.7 | 50.0 ± 70.7 | -37.5 ± 62.5, 1 of 2 | 0.25 |",
    ]
    rows = table([*nash, *sums])
    assert "| nash | 50.0 ± 70.7 | -37.5 ± 62.5, 1 of 2 | +25.0 ± 25.0, 1 of 2 | -50.0 ± 50.0, 0 of 2 |" in rows


def test_the_table_says_where_the_gradients_are_in_conflict() -> None:
    """Means over the runs that looked; a rule of one gradient a step has no steps in conflict, only probes."""
    cell, setting = ("gradient_ascent", "full", SUM), {"learning_rate": 1e-4}

    def seen(share: float | None, cosine: float) -> dict[str, Any]:
        blocks = {"up.attention": cosine, "other": -cosine}
        return {"final_cosine": 0.0, "mean_cosine": cosine / 2, "steps_in_conflict": share, "blocks": blocks}

    sums = [
        result(cell, setting, 1.0) | {"seed": seed, "gradients": seen(share, cosine)}
        for seed, (share, cosine) in enumerate([(0.1, 0.2), (0.3, 0.6)])
    ]
    turns = sums[0] | {"rule": "alternating_steps", "gradients": seen(None, 0.5)}
    older = sums[0] | {"rule": "nash", "gradients": {"final_cosine": 0.0, "mean_cosine": 0.0}}
    assert table([*sums, turns, older]).splitlines()[-4:] == [
        "| rule | steps in conflict | cosine | other | up.attention |",
        "|---|---|---|---|---|",
        "| weighted_sum | 20.0 ± 14.1 | 0.20 | -0.40 | 0.40 |",
        "| alternating_steps | - | 0.25 | -0.50 | 0.50 |",
    ]


def two_cells() -> list[dict[str, Any]]:
    """Two rules under two losses, of different selections."""
    cells = [("negative_guidance", "full", 0.5, 1.0), ("gradient_ascent", "lora", 1.0, 1.0)]
    return [
        result((loss, selection, rule), {"learning_rate": 1e-4}, ua) | {"seed": 0}
        for loss, selection, *uas in cells
        for rule, ua in zip((SUM, "nash"), uas, strict=True)
    ]


def test_merits_have_a_column_for_each_cell_and_the_best_mean_first() -> None:
    """The harmonic mean of 0.5, 1 and 1 is 3 / 4."""
    assert merits(two_cells()).splitlines() == [
        "| rule | negative_guidance, full | gradient_ascent, lora |",
        "|---|---|---|",
        "| nash | 100.0 | 100.0 |",
        "| weighted_sum | 75.0 | 100.0 |",
    ]


def test_the_pareto_plot_has_a_row_for_each_loss_and_a_column_for_each_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells on the diagonal: two panels, none for the pairs that nothing was measured of."""
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *of, **how: drawn.append(self) or save(self, *of, **how))
    pareto(two_cells(), tmp_path / "pareto.svg")
    [figure] = drawn
    assert [axes.get_visible() for axes in figure.axes] == [True, False, False, True]
    assert [axes.get_title() for axes in figure.axes] == ["negative_guidance, full", "", "", "gradient_ascent, lora"]
    assert len(figure.legends[0].get_texts()) == 2


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    results = [{**r, "setting": {**r["setting"], "forget_weight": 0.1}} for r in two_cells()]
    for folder in (tmp_path / "once", tmp_path / "again"):
        folder.mkdir()
        write(results, results, folder)
    once, again = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("once", "again"))
    assert len(once) == 4
    assert once == again


def test_the_plots_hide_no_run_that_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs at a weight one is ruined, at ten times that both are: kept falls from 100 to 50 and to 0."""
    drawn: list[tuple[list[float], ...]] = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, *of, **how: drawn.append(of) or plot(self, *of, **how))
    runs = [
        result(("gradient_ascent", "full", "pcgrad"), {"learning_rate": 1e-4, "forget_weight": weight}, 1.0) | ruined
        for weight, ruin in ((0.1, (False, False)), (1.0, (False, True)), (10.0, (True, True)))
        for ruined in ({"erased": None} if each else {} for each in ruin)
    ]
    weights(runs, tmp_path / "weights.svg")
    assert ([0.1, 1.0, 10.0], [100.0, 50.0, 0.0]) in drawn
    assert weight_table(runs).splitlines() == [
        "| gradient_ascent, full | rate | 0.1: UA, kept | 1: UA, kept | 10: UA, kept |",
        "|---|---|---|---|---|",
        "| pcgrad | 0.0001 | 100 ± 0, 100 ± 0 | 100 ± 0, 50 ± 71 | 100 ± 0, 0 ± 0 |",
    ]


@pytest.mark.parametrize("stage", ["compare", "weights"])
def test_what_is_stored_is_of_the_settings_that_are_shipped(stage: str, tmp_path: Path) -> None:
    """A result of older settings is not taken for one of today's."""
    store = TrialStore(compare.STORE / stage, tmp_path)
    found = store.results()
    cells = {(f["loss"], f["parameters"], f["rule"]) for f in found.values()}
    shipped = {trial.name: trial for trial in compare.trials(stage, cells)} if cells else {}
    assert set(found) <= set(shipped)
    assert all(store.has(shipped[name]) for name in found)


def test_what_was_tried_is_what_the_search_tries(tmp_path: Path) -> None:
    """Nothing that is stored is left over; of a cell that is not tuned to its end, tries may be missing."""
    store = TrialStore(compare.STORE / "tune", tmp_path)
    found = store.results()
    for cell in {(f["loss"], f["parameters"], f["rule"]) for f in found.values()}:
        names = {name for name in found if name.startswith("-".join(cell) + "-")}
        seen = tries(cell, lambda trial: merit(found[trial.name]) if trial.name in found else -1.0)
        assert names <= set(seen), cell
        assert all(store.has(seen[name]) for name in names), cell


def test_the_readme_and_the_results_have_what_is_stored() -> None:
    found = compare.finished("compare")
    assert ("gradient_ascent", "full") in panels_of(found)
    assert (compare.STORE.parent / "compare_updates.md").read_text(encoding="utf-8") == table(found)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert merits(found) in readme
    strongest = [r for r in found if (r["loss"], r["parameters"]) == ("gradient_ascent", "full")]
    assert summary(strongest) in readme
    weighed = compare.finished("weights")
    assert ("gradient_ascent", "full") in panels_of(weighed)
    assert (compare.STORE.parent / "compare_updates_weights.md").read_text(encoding="utf-8") == weight_table(weighed)
    assert weight_table(weighed) in readme
