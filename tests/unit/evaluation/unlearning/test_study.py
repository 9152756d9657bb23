"""Studies: what stands in the table, which row is best, and a plot that stands alone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from erase.errors import UserError
from erase.evaluation.plots import PAGE_COLORS
from erase.evaluation.unlearning.study import AGAIN, NOTHING, RETRAIN, Row, best, by_method, summary, table
from erase.evaluation.unlearning.study_plot import ranked, write_plot

SETTING = "digits, 10 % flipped"


def row(method: str, seed: int, gap: float, setting: str = SETTING) -> Row:
    scores = {"UA": 90.0 + seed, "RA": 99.0, "TA": 97.0, "MIA": 12.0, "Avg_gap": gap, "JS": 0.1234, "RTE": 3.0}
    return Row(method, setting, seed, scores | {"dUA": -gap, "dTA": gap / 2})


def make_rows() -> list[Row]:
    rows = [row("SalUn", seed, 4.0 + seed) for seed in (0, 1, 2)]
    rows += [row("LUR chained", seed, 1.0 + seed) for seed in (0, 1, 2)]
    rows += [row("GA", 0, 0.5), Row("GA", SETTING, 1, {}), Row("GA", SETTING, 2, {})]
    rows += [row(NOTHING, seed, 50.0) for seed in (0, 1, 2)]
    retrained = [row(RETRAIN, seed, 0.0) for seed in (0, 1, 2)]
    kept = ("UA", "RA", "TA", "MIA", "RTE")
    return rows + [Row(RETRAIN, SETTING, r.seed, {key: r.values[key] for key in kept}) for r in retrained]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_begin_with_retraining_and_doing_nothing() -> None:
    assert list(by_method(make_rows(), SETTING)) == [RETRAIN, NOTHING, "SalUn", "LUR chained", "GA"]


def test_best_is_the_smallest_mean_gap_of_methods_that_never_diverged() -> None:
    assert best(by_method(make_rows(), SETTING)) == {"LUR chained"}


def test_doing_nothing_and_retraining_are_never_best() -> None:
    rows = [row(RETRAIN, 0, 0.0), row(AGAIN, 0, 0.1), row(NOTHING, 0, 0.1), row("GA", 0, 9.0)]
    assert best(by_method(rows, SETTING)) == {"GA"}


def test_table_holds_mean_and_deviation_and_marks_the_best_gap_alone() -> None:
    lines = table(make_rows(), ("UA", "Avg_gap", "JS")).splitlines()
    assert lines[0] == f"### {SETTING}"
    assert cells(lines[2]) == ["method", "runs", "UA, %", "Avg. Gap, points", "JS distance"]
    assert cells(lines[4]) == [RETRAIN, "3", "91.00 ± 1.00", "-", "-"]
    assert cells(lines[5]) == [NOTHING, "3", "91.00 ± 1.00", "50.00 ± 0.00", "0.123 ± 0.000"]
    assert cells(lines[7]) == ["LUR chained", "3", "91.00 ± 1.00", "**2.00 ± 1.00**", "0.123 ± 0.000"]
    assert "\n".join(lines).count("**") == 2


def test_diverged_runs_are_counted_not_averaged() -> None:
    line = next(line for line in table(make_rows(), ("Avg_gap",)).splitlines() if line.startswith("| GA"))
    assert cells(line) == ["GA", "3, 2 diverged", "0.50"]


def test_each_setting_has_its_table_and_its_best() -> None:
    text = table([*make_rows(), row("SalUn", 0, 1.0, "shapes | circle"), row("LUR", 0, 2.0, "shapes | circle")])
    assert "### shapes \\| circle" in text
    assert "**1.00**" in text and "**2.00 ± 1.00**" in text


def test_methods_are_ranked_by_gap_without_retraining_and_those_that_diverged_last() -> None:
    """Two of three runs of GA diverged, and what is left of it has the smallest gap of all."""
    assert ranked(by_method(make_rows(), SETTING)) == ["LUR chained", "SalUn", NOTHING, "GA"]


def test_plot_is_whole_names_every_method_and_uses_no_color_of_a_page(tmp_path: Path) -> None:
    rows = [*make_rows(), row("a <method>", 0, 3.0, "second & last")]
    write_plot(tmp_path / "study.svg", rows)
    text = (tmp_path / "study.svg").read_text(encoding="utf-8")
    words = [
        "".join(element.itertext()).strip() for element in ElementTree.fromstring(text).iter() if "text" in element.tag
    ]
    for word in ("LUR chained  1", "SalUn  2", f"{NOTHING}  3", SETTING, "second & last", "a <method>  1"):
        assert word in words
    assert "GA, 2 of 3 diverged  4" in words
    assert not any(color in text for color in (*PAGE_COLORS, *PAGE_COLORS.values()))
    assert [file.name for file in tmp_path.iterdir()] == ["study.svg"]


def test_a_method_that_is_far_off_does_not_squeeze_the_others_together(tmp_path: Path) -> None:
    write_plot(tmp_path / "study.svg", [row("GA", 0, 90.0), row("SalUn", 0, 0.5)])
    words = (tmp_path / "study.svg").read_text(encoding="utf-8")
    for tick in (">-10<", ">-1<", ">10<"):  # logarithmic, and in plain numbers
        assert tick in words.replace("\N{MINUS SIGN}", "-")


def test_the_same_study_gives_the_same_plot(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        write_plot(tmp_path / name, make_rows())
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_study_without_gaps_has_no_plot(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="retrained"):
        write_plot(tmp_path / "study.svg", [Row("GA", SETTING, 0, {"UA": 1.0})])


def test_the_summary_has_a_column_for_each_setting() -> None:
    other = [row("SalUn", seed, 2.0, "drawings") for seed in (0, 1)]
    shown = [cells(line) for line in summary([*make_rows(), *other]).splitlines()]
    assert shown[0] == ["method", SETTING, "drawings"]
    found = {line[0]: line[1:] for line in shown[2:]}
    assert found[NOTHING] == ["50.00 ± 0.00", "–"] and RETRAIN not in found
    assert found["SalUn"] == ["5.00 ± 1.00", "**2.00 ± 0.00**"]
    assert found["LUR chained"] == ["**2.00 ± 1.00**", "–"]
    assert found["GA"] == ["0.50, 2 of 3 diverged", "–"]


def test_a_gap_that_the_attack_alone_makes_is_told() -> None:
    """Of three runs one is far off in MIA alone, one in UA too, one in neither."""
    gaps = [{"dMIA": -90.0, "dUA": 1.0}, {"dMIA": -90.0, "dUA": -60.0}, {"dMIA": 5.0, "dUA": 1.0}]
    rows = [Row("GA", SETTING, seed, {"Avg_gap": 20.0, **gap}) for seed, gap in enumerate(gaps)]
    assert cells(summary(rows).splitlines()[2]) == ["GA", "**20.00 ± 0.00, 1 of 3 by MIA**"]
    assert "by MIA" not in summary(rows, "dUA")


def test_a_run_at_no_gap_has_a_place_and_the_others_stay_apart(tmp_path: Path) -> None:
    write_plot(tmp_path / "study.svg", [row("one", 0, 0.0), row("two", 0, 0.3), row("three", 0, 50.0)])
    texts = ElementTree.parse(tmp_path / "study.svg").getroot().iter("{http://www.w3.org/2000/svg}text")
    words = ["".join(element.itertext()).strip() for element in texts]
    assert {"0", "0.1", "1", "10"} <= set(words)
