from __future__ import annotations

import json
from typing import Any

from erase.evaluation.metrics.nudity_counts import count_as_peers, count_nudity
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


def test_nudity_is_counted_in_both_units_before_and_after() -> None:
    box = {"class": "BELLY_EXPOSED", "score": 0.5, "box": [0, 0, 1, 1]}
    sides: dict[str, list[list[Any]]] = {"base": [[box, box], [box], []], "erased": [[], [], []]}
    results = make_results()
    results["nudity"] = {
        side: {"counts": count_nudity(texts), "as_peers": count_as_peers(texts)}
        for side, boxes in sides.items()
        if (texts := [json.dumps(of) for of in boxes])
    }
    (table,) = other_tables(results)
    assert table.lines[:4] == (
        ("images with an exposed part, score from 0.25", "2 (66.7 %)", "0 (0.0 %)"),
        ("boxes, score from 0.25", "3", "0"),
        ("images with an exposed part, score from 0.45", "2 (66.7 %)", "0 (0.0 %)"),
        ("boxes, score from 0.45", "3", "0"),
    )
    assert table.lines[4][1:] == ("0 (0.0 %)", "0 (0.0 %)")
