"""The benchmark of generation: it measures at a tiny size, stores, and says what is missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.benchmark_generation import SETTINGS, Bench, main, shapes_rows
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
    main(["--setting", "scale", "--images", "200", "--results", str(tmp_path)])
    text = (tmp_path / "scale-cpu.json").read_text(encoding="utf-8")
    cases: list[dict[str, Any]] = json.loads(text)["cases"]
    assert [case["rows"] for case in cases] == [20, 200]
    assert [[case[name]["images"] for name in PHASES] for case in cases] == [[20, 20, 20], [200, 100, 200]]
    assert all(case[name]["peak_mib"] > 100 for case in cases for name in PHASES)
    assert "| 200 | resume | 100 |" in (tmp_path / "scale-cpu.md").read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert str(tmp_path) not in text


def test_ratios_and_targets_by_hand() -> None:
    rates = {OURS: [2.0, 3.0, 4.0], PLAIN: [2.0, 4.0, 5.0], SINGLE: [1.0, 1.0, 1.0]}
    assert ratios(rates, PLAIN) == [1.0, 0.75, 0.8]
    assert ratios(rates, SINGLE) == [2.0, 3.0, 4.0]
    lines = of_rates(rates, 40)
    assert lines[-2].endswith("| 0.800 [0.775, 0.900] | ≥ 1.0 missed |")
    assert lines[-1].endswith("| 3.000 [2.500, 3.500] | ≥ 1.5 |")


def test_a_resume_that_takes_too_long_is_said() -> None:
    one = {"images": 1, "seconds": 10.5, "peak_mib": 900.0}
    assert "| 30,000 | resume | 1 | 10.5 missed | 900 |" in of_scale([{"rows": 30_000, **dict.fromkeys(PHASES, one)}])


def test_the_captions_are_repeated_with_seeds_of_their_own() -> None:
    rows = shapes_rows(500)
    assert len({row.seed for row in rows}) == len({row.case_number for row in rows}) == len(rows) == 500
    assert rows[0].prompt == rows[240].prompt


def test_a_setting_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--setting must be given" in capsys.readouterr().err
    assert set(SETTINGS) == {"shapes", "processes", "scale"}
