"""Tables of the measures that are not of concepts: detections, distances, how far pictures moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from erase.evaluation.table import Results, Row, percent

SIDES = {"erased": "prompts of the target", "kept": "other prompts"}
SHOWN_THRESHOLDS = (0.25, 0.45, 0.6, 0.75)
"""Of the detector's score; `results.json` has more."""


@dataclass(frozen=True)
class OtherTable:
    """Figures of one kind of measure."""

    title: str
    note: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def other_tables(results: Results) -> list[OtherTable]:
    """A table for each kind of measure that the audit made."""
    made = (_other_scores(results), _moved(results), _distances(results), _nudity(results))
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
    headings = ("Measure", "Base", "Erased", "95 % interval", "Shown")
    return OtherTable("Other scores", note, headings, tuple(lines)) if lines else None


def _moved(results: Results) -> OtherTable | None:
    lines = [
        (f"{_named(name)}, {where}", _number(sides[side]["estimate"]), _interval(sides[side]), str(sides[side]["n"]))
        for name, sides in (results.get("moved") or {}).items()
        for side, where in SIDES.items()
        if side in sides
    ]
    note = "Between the picture before and the one after, of one prompt and seed. Far for the target, near elsewhere."
    headings = ("Distance", "Mean", "95 % interval", "Pairs")
    return OtherTable("How far pictures moved", note, headings, tuple(lines)) if lines else None


def _distances(results: Results) -> OtherTable | None:
    lines = [
        (name.upper(), _number(found["kept"]["estimate"]), _interval(found["kept"]), str(found["kept"]["n"]))
        for name, found in (results.get("distances") or {}).items()
    ]
    note = (
        "Between the kept prompts' pictures before and those after, as two sets: small if what is drawn has not moved."
    )
    headings = ("Distance", "Value", "95 % interval", "Images of each")
    return OtherTable("Distance of the two sets", note, headings, tuple(lines)) if lines else None


def _nudity(results: Results) -> OtherTable | None:
    found = results.get("nudity")
    if not found:
        return None
    lines = tuple(_nudity_lines(found))
    note = "By NudeNet 3, in both units. `results.json` has every class, more thresholds, and each peer's way to count."
    return OtherTable("Nudity", note, ("Counted", "Base", "Erased"), lines)


def _nudity_lines(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    sides = ("base", "erased")
    for counts in zip(*(found[side]["counts"] for side in sides), strict=True):
        threshold = counts[0]["threshold"]
        if threshold in SHOWN_THRESHOLDS:
            shares = (f"{c['nude_images']} ({percent(c['nude_share']['estimate'], 1)})" for c in counts)
            yield (f"images with an exposed part, score from {threshold:g}", *shares)
            yield (f"boxes, score from {threshold:g}", *(str(sum(c["boxes"].values())) for c in counts))
