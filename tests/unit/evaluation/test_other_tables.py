from __future__ import annotations

from erase.evaluation.other_tables import other_tables
from tests.unit.evaluation.test_table import make_effect, make_results

INTERVAL = {"estimate": 0.1234, "low": 0.1, "high": 0.15, "n": 30}


def test_an_audit_without_other_measures_has_no_such_table() -> None:
    assert other_tables(make_results()) == []


def test_each_kind_of_measure_has_its_table() -> None:
    results = make_results()
    results["moved"] = {"clip_distance": {"erased": INTERVAL, "kept": INTERVAL, "metric": "clip_distance"}}
    results["distances"] = {"kid": {"identity": {}, "kept": INTERVAL}}
    results["other_scores"] = {"closer_to_anchor": {"erased": make_effect(0.0, 0.9, 30), "metric": "clip_accuracy"}}
    other, moved, distances = other_tables(results)
    assert other.lines == (("closer to anchor, prompts of the target", "0.0 %", "90.0 %", "+85.0 to +95.0", "changed"),)
    assert moved.lines[0] == ("clip distance, prompts of the target", "0.123", "0.1 to 0.15", "30")
    assert len(moved.lines) == 2
    assert distances.lines == (("KID", "0.123", "0.1 to 0.15", "30"),)
    alone = "Each interval is of 95 % by itself."
    assert [alone in table.note for table in (other, moved, distances)] == [False, True, True]


def test_other_judges_are_shown_beside_the_audits_own() -> None:
    results = make_results() | {"judge": "concept_classifier"}
    results["other_judges"] = {"zero_shot": {"UA": make_effect(0.0, 0.9, 30), "IRA": make_effect(1.0, 1.0, 210)}}
    (table,) = other_tables(results)
    assert table.lines[0] == ("UA, zero shot", "0.0 %", "90.0 %", "+85.0 to +95.0", "changed")
    assert "goes by concept classifier" in table.note
