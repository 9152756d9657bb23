"""The benchmark of generation: it measures at a tiny size, stores, and says what is missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from erase.evaluation.audit_settings import plan_audit
from erase.generation.plan import Ask, Look
from pipelines.benchmark_generation import SETTINGS, Bench, main, shapes_rows
from pipelines.benchmark_scale import CALLS, CAPTIONS, SIDE, audit_of, negative, paint, write_rows
from pipelines.generation_table import OURS, PHASES, PLAIN, SINGLE, of_rates, of_scale, ratios
from tests.launch import ROOT


def test_all_three_ways_make_the_same_pictures(tmp_path: Path) -> None:
    """Or else their times would say nothing."""
    bench = Bench(4, 4, tmp_path)
    assert (bench.ours(tmp_path / "ours"), bench.plain(tmp_path / "plain"), bench.single(tmp_path / "one")) == (4, 4, 1)
    folders = [tmp_path / "ours" / "images", tmp_path / "plain"]
    for i in range(4):
        ours, plain = (np.asarray(Image.open(folder / f"{i:05d}_0.png"), int) for folder in folders)
        assert np.abs(ours - plain).max() <= 1
    one = np.asarray(Image.open(tmp_path / "one" / "00000_0.png"), int)
    assert np.abs(one - np.asarray(Image.open(tmp_path / "plain" / "00000_0.png"), int)).max() <= 1


@pytest.mark.slow
def test_the_scale_is_measured_in_processes_of_their_own_and_stored(tmp_path: Path) -> None:
    main(["--setting", "scale", "--images", "240", "--results", str(tmp_path)])
    text = (tmp_path / "scale-cpu.json").read_text(encoding="utf-8")
    (case,) = json.loads(text)["cases"]
    assert case["rows"] == 240
    assert [case[name]["images"] for name in PHASES] == [240, 120, 240, 240, 480, 480, 480]
    assert all(case[name]["peak_mib"] > 100 for name in PHASES)
    assert case["score again"]["seconds"] < case["score"]["seconds"]
    assert 0.1 < case["report"]["report_mb"] < 20
    assert "| 240 | resume | 120 |" in (tmp_path / "scale-cpu.md").read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert str(tmp_path) not in text


def test_the_two_sides_of_the_scale_differ_and_hold_every_concept(tmp_path: Path) -> None:
    write_rows(tmp_path / "place", CAPTIONS)
    plan = plan_audit(audit_of(tmp_path / "place"))
    assert len(plan.rows) == len({row.prompt for row in plan.rows}) == len({row.seed for row in plan.rows}) == CAPTIONS
    ask = Ask(plan.rows[0], 0, Look(1, 1.0, SIDE, SIDE))
    assert np.array_equal(paint([ask]) ^ negative([ask]), np.full((1, SIDE, SIDE, 3), 255))


def test_ratios_and_targets_by_hand() -> None:
    rates = {OURS: [2.0, 3.0, 4.0], PLAIN: [2.0, 4.0, 5.0], SINGLE: [1.0, 1.0, 1.0]}
    assert ratios(rates, PLAIN) == [1.0, 0.75, 0.8]
    assert ratios(rates, SINGLE) == [2.0, 3.0, 4.0]
    lines = of_rates(rates, 40)
    assert lines[-2].endswith("| 0.800 [0.775, 0.900] | ≥ 1.0 missed |")
    assert lines[-1].endswith("| 3.000 [2.500, 3.500] | ≥ 1.5 |")


def scale_case(rows: int, **changed: dict[str, float]) -> dict[str, Any]:
    one = {"images": 1, "seconds": 9.9, "peak_mib": 900.0}
    found = {name: one | changed.get(name.replace(" ", "_"), {}) for name in PHASES}
    found["report"] |= {"report_mb": 19.9} | changed.get("report", {})
    return {"rows": rows, **found}


def test_what_the_scale_misses_is_said_and_nothing_else() -> None:
    small = scale_case(3_000)
    assert "missed" not in "".join(of_scale([small, scale_case(30_000, score={"seconds": 999.0, "peak_mib": 1125.0})]))
    late: dict[str, dict[str, float]] = {"resume": {"seconds": 10.5}, "score_again": {"seconds": 11.0}}
    heavy: dict[str, dict[str, float]] = {"report": {"report_mb": 20.5, "peak_mib": 1126.0}}
    lines = of_scale([small, scale_case(30_000, **late, **heavy)])
    assert [line for line in lines if "missed" in line] == [
        "| 30,000 | resume | 1 | 10.5 missed | 900 |  |",
        "| 30,000 | score again | 1 | 11.0 missed | 900 |  |",
        "| 30,000 | report | 1 | 9.9 | 1126 missed | 20.5 missed |",
    ]


def test_the_captions_are_repeated_with_seeds_of_their_own() -> None:
    rows = shapes_rows(500)
    assert len({row.seed for row in rows}) == len({row.case_number for row in rows}) == len(rows) == 500
    assert rows[0].prompt == rows[240].prompt


def test_a_setting_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--setting must be given" in capsys.readouterr().err
    assert set(SETTINGS) == {"shapes", "processes", "scale"}
    assert list(CALLS) == list(PHASES)
