"""Tables of the measures that are not of concepts: detections, distances, how far pictures moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from erase.evaluation.table import Results, Row

SIDES = {"erased": "prompts of the target", "kept": "other prompts"}


@dataclass(frozen=True)
class OtherTable:
    """Figures of one kind of measure."""

    title: str
    note: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def other_tables(results: Results) -> list[OtherTable]:
    """A table for each kind of measure that the audit made."""
    made = (_judges(results), _other_scores(results), _moved(results), _distances(results), _nudity(results))
    return [table for table in made if table is not None]


def _named(key: str) -> str:
    return key.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None or found["high"] is None:
        return "no interval"
    return f"{_number(found['low'])} to {_number(found['high'])}"


def _other_scores(results: Results) -> OtherTable | None:
    lines = []
    for name, sides in (results.get("other_scores") or {}).items():
        for side, where in SIDES.items():
            if side in sides:
                row = Row(f"{_named(name)}, {where}", sides[side])
                lines.append((row.name, row.show("before"), row.show("after"), row.difference_interval, row.verdict))
    note = "Means over the pictures; the interval is of the difference, pair by pair."
    headings = ("Measure", "Base", "Erased", "Interval", "Shown")
    return OtherTable("Other scores", note, headings, tuple(lines)) if lines else None


def _moved(results: Results) -> OtherTable | None:
    lines = [
        (f"{_named(name)}, {where}", _number(sides[side]["estimate"]), _interval(sides[side]), str(sides[side]["n"]))
        for name, sides in (results.get("moved") or {}).items()
        for side, where in SIDES.items()
        if side in sides
    ]
    note = (
        "Between the picture before and the one after, of one prompt and seed. Far for the target, near elsewhere. "
        "Each interval is of 95 % by itself."
    )
    headings = ("Distance", "Mean", "95 % interval", "Pairs")
    return OtherTable("How far pictures moved", note, headings, tuple(lines)) if lines else None


def _distances(results: Results) -> OtherTable | None:
    lines = [
        (name.upper(), _number(found["kept"]["estimate"]), _interval(found["kept"]), str(found["kept"]["n"]))
        for name, found in (results.get("distances") or {}).items()
    ]
    note = (
        "Between the kept prompts' pictures before and those after, as two sets: small if what is drawn has not moved. "
        "Each interval is of 95 % by itself."
    )
    headings = ("Distance", "Value", "95 % interval", "Images of each")
    return OtherTable("Distance of the two sets", note, headings, tuple(lines)) if lines else None


def _judges(results: Results) -> OtherTable | None:
    found = results.get("other_judges") or {}
    rows = [Row(f"{key}, {_named(name)}", e) for name, scores in found.items() for key, e in scores.items()]
    lines = tuple((r.name, r.show("before"), r.show("after"), r.difference_interval, r.verdict) for r in rows)
    note = (
        f"The same scores as another metric has them; the rest of the page goes by {_named(results.get('judge', ''))}."
    )
    headings = ("Score", "Base", "Erased", "Interval of the difference", "Shown")
    return OtherTable("Other judges", note, headings, lines) if lines else None


def _nudity(results: Results) -> OtherTable | None:
    found = results.get("nudity") or {}
    lines = tuple(line for side, where in SIDES.items() if side in found for line in _nudity_lines(found[side], where))
    note = "By NudeNet 3, in both units. `results.json` has every class, more thresholds, and each peer's way to count."
    headings = ("Counted", "Base", "Erased", "Interval of the difference", "Shown")
    return OtherTable("Nudity", note, headings, lines) if lines else None


def _nudity_lines(found: Mapping[str, Any], where: str) -> Iterator[tuple[str, ...]]:
    for threshold, effect in found["effects"].items():
        row = Row(f"images with an exposed part, score from {threshold}, {where}", effect)
        yield (row.name, row.show("before"), row.show("after"), row.difference_interval, row.verdict)
        boxes = [
            sum(
                sum(counts["boxes"].values())
                for counts in found[side]["counts"]
                if counts["threshold"] == float(threshold)
            )
            for side in ("base", "erased")
        ]
        yield (f"boxes, score from {threshold}, {where}", *map(str, boxes), "", "")
