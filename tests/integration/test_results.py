"""The committed results: of the settings that are shipped now, and in the README as they are."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from erase.evaluation.trials import TrialStore
from tests.launch import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "pipelines" / "results"


def pipeline(name: str) -> ModuleType:
    """A script of ``pipelines/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "pipelines" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return pipeline("erasure_table")


@pytest.fixture(scope="module")
def found(table: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return TrialStore(table.STORE, tmp_path_factory.mktemp("scratch")).results()


def test_the_table_has_every_target_rule_and_three_seeds(table: ModuleType, found: dict[str, dict[str, Any]]) -> None:
    wanted = {f"{target}-{rule}-{seed}" for target in table.TARGETS for rule in table.RULES for seed in range(3)}
    assert set(found) == wanted


def test_the_results_are_of_the_settings_that_are_shipped(table: ModuleType, tmp_path: Path) -> None:
    store = TrialStore(table.STORE, tmp_path)
    for target in table.TARGETS:
        for rule in table.RULES:
            assert all(store.has(table.trial(target, rule, seed)) for seed in range(3)), (target, rule)
    assert not store.has(table.trial("star", "lur", 99))


def test_a_result_of_other_settings_is_not_taken_for_them(table: ModuleType, tmp_path: Path) -> None:
    trial = table.trial("star", "lur", 0)
    changed = type(trial)(trial.name, trial.target, trial.seed, trial.evaluation_seed, ("learning_rate=1e-3",))
    other_exam = type(trial)(trial.name, trial.target, trial.seed, 7, trial.overrides)
    store = TrialStore(table.STORE, tmp_path)
    assert not store.has(changed) and not store.has(other_exam)


def test_the_readme_has_the_table_as_it_is(table: ModuleType, found: dict[str, dict[str, Any]]) -> None:
    rendered = table.render(table.in_order(found.values()))
    assert rendered == (RESULTS / "erasure_table.md").read_text(encoding="utf-8")
    assert rendered in README


def test_the_default_reaches_its_bars(table: ModuleType, found: dict[str, dict[str, Any]]) -> None:
    """Mean over seeds: UA at least 95 %; every kept accuracy within 3 points of the base's."""
    for target in table.TARGETS:
        of = [result for result in found.values() if result["target"] == target and result["rule"] == "lur"]
        erased, base = ([result[side]["scores"] for result in of] for side in ("erased", "base"))
        assert mean(s["UA"] for s in erased) >= 0.95, target
        assert mean(s["IRA"] for s in base) - mean(s["IRA"] for s in erased) <= 0.03, target
        for domain in erased[0]["across"]:
            for prompts in ("kept", "erased"):
                then, now = (mean(s["across"][domain][prompts] for s in side) for side in (base, erased))
                assert then - now <= 0.03, (target, domain, prompts)


def mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def test_the_readmes_prices_are_the_benchmarks() -> None:
    prices = importlib.import_module("pipelines.benchmark_table")
    figures = json.loads((RESULTS / "benchmark_updates" / "shapes-cpu.json").read_text(encoding="utf-8"))
    assert [case["parameters"] for case in figures["cases"]] == ["full", "cross_attention", "lora"]
    assert prices.summary(figures, prices.README_RULES) in README
    assert (RESULTS / "benchmark_updates" / "shapes-cpu.md").read_text(encoding="utf-8") == prices.render(figures)


def test_the_readmes_costs_of_an_audit_are_the_benchmarks() -> None:
    tables = importlib.import_module("pipelines.generation_table")
    for setting in ("shapes", "processes", "scale"):
        figures = json.loads((RESULTS / "benchmark_generation" / f"{setting}-cpu.json").read_text(encoding="utf-8"))
        shown = (RESULTS / "benchmark_generation" / f"{setting}-cpu.md").read_text(encoding="utf-8")
        assert tables.render(figures) == shown
        if setting == "shapes":
            assert shown.split("\n\n")[-1].rstrip() in README
    few, many = figures["cases"]
    memory = [max(phase["peak_mib"] for phase in case.values() if isinstance(phase, dict)) for case in (few, many)]
    found = " ".join(README.split())
    assert (
        f"takes {many['resume']['seconds']:.1f} s, reading the verified set {many['read']['seconds']:.1f} s, finding "
        f"every score again {many['score again']['seconds']:.1f} s. Memory peaks at" in found
    )
    assert f"at {memory[1]:.0f} MiB, with a tenth of the rows at {memory[0]:.0f} MiB" in found
    assert f"the page has {many['report']['report_mb']:.1f} MB" in found


def test_the_alpha_sweeps_table_is_of_its_results(tmp_path: Path) -> None:
    sweep = pipeline("alpha_sweep")
    found = TrialStore(sweep.STORE, tmp_path).results()
    assert set(found) == {trial.name for trial in sweep.trials([0])}
    assert all(TrialStore(sweep.STORE, tmp_path).has(trial) for trial in sweep.trials([0]))
    assert sweep.STORE.with_suffix(".md").read_text(encoding="utf-8") == sweep.render(found.values())
    ratios = sweep.SWEEPS["correction"]
    assert max(ratios) / min(ratios) >= 1e4, "four orders of magnitude, as the README says"
    flat = [found[f"correction-{ratio:g}-0"]["erased"]["scores"] for ratio in ratios]
    for ratio in ratios:
        seen = found[f"correction-{ratio:g}-0"]["gradients"]["correction"]
        assert 0.86 < seen / ratio < 1.14, "flat because alpha does what it says, not because nothing is done"
    for score in ("UA", "IRA", "CRA_kept", "CRA_erased"):
        values = [scores[score] for scores in flat]
        assert max(values) - min(values) <= (1.001 / 30 if score == "UA" else 0.005), (score, values)


def test_the_alpha_sweeps_table_tells_of_runs_that_diverged(tmp_path: Path) -> None:
    sweep = pipeline("alpha_sweep")
    (fine, *_) = TrialStore(sweep.STORE, tmp_path).results().values()
    assert "| 2, 1 diverged |" in sweep.render([fine, fine | {"seed": 1, "erased": None}])
    assert "diverged" not in sweep.render([fine])


def test_the_readmes_table_of_unlearning_is_of_the_study() -> None:
    """And of the settings that are shipped: a run of others is not among the rows."""
    study, methods = (importlib.import_module(f"pipelines.unlearning_{name}") for name in ("table", "methods"))
    made = study.Study(study.STORE, Path("unused"))
    rows = study.all_rows(made)
    titles = {setting.title: name for name, setting in methods.SETTINGS.items()}
    assert {row.setting for row in rows} <= titles.keys()
    for setting in {row.setting for row in rows}:
        pairs = {(row.method, row.seed) for row in rows if row.setting == setting}
        wanted = {*study.REFERENCES, *made.methods(titles[setting])}
        assert pairs == {(method, seed) for method in wanted for seed in range(5)}, setting
    assert study.render(made, rows) == study.STORE.with_suffix(".md").read_text(encoding="utf-8")
    assert study.summary(rows) in README
    assert study.headline(made, rows) in README


def test_the_readmes_cost_of_training_is_the_benchmarks() -> None:
    shown = (RESULTS / "benchmark_training" / "shapes-cpu.md").read_text(encoding="utf-8")
    found = [line.split("|")[-2].strip() for line in shown.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("| ")]
    first = names.index("evaluations an example, esd's recipe / lur chained")
    evaluations, seconds, both = found[first : first + 3]
    alone = " and ".join(f"{float(value):.1f}" for value in both.split(" and "))
    text = " ".join(README.split())
    assert f"takes {evaluations} times fewer denoiser evaluations and {seconds} times less time" in text
    assert f"by examples to forget alone it is {alone} times" in text
