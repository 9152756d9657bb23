"""`pipelines/unlearn_class.py` and the study: original, reference, unlearned model, numbers, page, table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from erase.evaluation.unlearning.study import NOTHING, RETRAIN
from pipelines import unlearn_class, unlearning_methods, unlearning_table
from tests.integration.test_unlearn import NETWORK, RUN

QUICK = RUN.replace("max_train_steps: 120", "max_train_steps: 20").replace("max_train_steps: 8", "max_train_steps: 3")


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("ERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(QUICK)


def go(patch: pytest.MonkeyPatch, *words: str) -> int:
    patch.setattr(sys, "argv", ["unlearn_class.py", "--config", "config.yaml", *words])
    return unlearn_class.main()


@pytest.mark.slow
def test_all_three_models_are_judged_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert go(monkeypatch, "--shadow_models", "2") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["judged"]) == ["original", "retrained", "unlearned"]
    assert results["judged"]["retrained"]["Avg_gap"]["value"] == 0
    assert {"UA", "RA", "TA", "MIA", "JS", "ToW", "RTE"} <= set(results["judged"]["unlearned"])
    assert set(results["shadows"]) == {"RMIA", "U-LiRA", "challenge"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "class 8" in page and "python pipelines/unlearn_class.py --config config.yaml" in page
    assert str(tmp_path) not in page


@pytest.mark.slow
def test_a_second_go_trains_nothing_and_another_run_in_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch) == 0
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert go(monkeypatch) == 0
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    assert go(monkeypatch, "--forget_weight", "0.2") == 2
    assert "holds a run of other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_the_study_tunes_judges_and_renders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods, with the network and the steps made small; a second go makes nothing again."""
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("digits_finetune", "digits_random10", "digits_flipped10"):
        text = (unlearning_methods.CONFIGS / f"{name}.yaml").read_text().replace("steps: 300", "steps: 4")
        (configs / f"{name}.yaml").write_text(text + NETWORK)
    monkeypatch.setattr(unlearning_methods, "CONFIGS", configs)
    few = {name: unlearning_methods.METHODS[name] for name in ("finetune", "lur chained")}
    monkeypatch.setattr(unlearning_table, "METHODS", few)
    store = tmp_path / "store" / "table"
    words = ["--settings", "digits_flipped10", "--seeds", "0", "--output", "scratch", "--store", str(store)]
    unlearning_table.main(words)
    files = {file: file.stat().st_mtime_ns for file in store.rglob("*.json")}
    assert len([file for file in files if "tune" in file.parts]) == 2 * 4
    rows = unlearning_table.all_rows(store)
    assert [row.method for row in rows] == [RETRAIN, NOTHING, "finetune", "lur chained"]
    table = store.with_suffix(".md").read_text()
    assert "### digits, 10 % flipped labels" in table and "| lur chained | 1 |" in table
    assert store.with_suffix(".svg").stat().st_size > 1000
    unlearning_table.main(words)
    runs = {file: stamp for file, stamp in files.items() if "references" not in file.name}
    assert {file: file.stat().st_mtime_ns for file in runs} == runs


def test_every_method_has_the_same_grid_and_budget() -> None:
    for name, method in unlearning_methods.METHODS.items():
        assert len(set(method.grid)) == 4, name
        run = unlearning_methods.make_run(
            unlearning_methods.SETTINGS["digits_class"], method, method.grid[-1], 0, Path("x")
        )
        each = {"lur": {"chained": 3, "exact": 3}.get(getattr(run.update, "mode", ""), 2)}.get(run.update.name)
        each = each or (1 if run.update.name in ("retain_only", "forget_only", "alternating_steps") else 2)
        assert each * run.max_train_steps <= 30, name


def test_steps_grow_with_the_data() -> None:
    method = unlearning_methods.METHODS["scrub"]
    runs = [
        unlearning_methods.make_run(unlearning_methods.SETTINGS[name], method, (), 0, Path("x"))
        for name in ("digits_class", "shapes_flipped10")
    ]
    assert [run.max_train_steps for run in runs] == [30, 99]
    assert [run.update.forget_until for run in runs] == [20, 66]
