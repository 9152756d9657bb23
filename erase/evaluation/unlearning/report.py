"""The page of one unlearning: what happened, the numbers of all three models, and how sure they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erase.errors import UserError
from erase.evaluation.panels import FORGET, INK, RETAIN
from erase.evaluation.plots import SETTINGS, Plot, inline
from erase.evaluation.report import TEMPLATES, flatten
from erase.evaluation.unlearning.judge import MEASURES, values
from erase.evaluation.unlearning.outputs import Outputs, Parts, required
from erase.provenance import write_text

ORIGINAL, RETRAINED, UNLEARNED = "original", "retrained", "unlearned"
SIDES = {
    ORIGINAL: "before unlearning: doing nothing",
    RETRAINED: "trained anew without the forget set: the goal",
    UNLEARNED: "after unlearning",
}
"""The models of a page, in its order."""
GROUPS = {
    "Accuracy": ("UA", "RA", "VA", "TA", "TA_forgotten"),
    "Membership inference": tuple(key for key in MEASURES if key.startswith("MIA")),
    "Against retraining": ("dUA", "dRA", "dTA", "dMIA", "Avg_gap", "ToW", "JS", "JS_nats", "KL"),
    "Cost": ("RTE",),
}
"""The table's groups of rows."""
DIGITS = {"%": 1, "points": 2, "": 3, "nats": 3, "s": 1}
"""Decimals by unit."""
EDGE, BINS = 14.0, 28
"""Margins beyond this are drawn at the edge: one in a million."""
TICKS = (1e-6, 1e-4, 0.01, 0.5, 0.99, 0.9999, 0.999999)
"""Confidences that are marked on the axis of margins."""


@dataclass(frozen=True)
class Results:
    """What the page tells of."""

    forgotten: str
    """In words: "class ring", "10 % of the training samples"."""
    model: str
    method: str
    judged: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """``judge`` of each of ``SIDES``; the unlearned one at least."""
    command: str = ""
    """What makes the page again."""
    facts: Mapping[str, Mapping[str, Any]] | None = None
    """Title to names and values: data and hashes, settings, environment."""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    meaning: str
    cells: tuple[str, ...]
    wanted: str


def write_report(file: Path, results: Results, outputs: Mapping[str, Parts]) -> None:
    """Writes the page; ``outputs`` of each model are what the distributions are drawn from."""
    write_text(file, render(results, outputs))


def render(results: Results, outputs: Mapping[str, Parts]) -> str:
    """The page's text."""
    if UNLEARNED not in results.judged or not set(results.judged) <= set(SIDES):
        raise UserError(f"report: found {', '.join(results.judged)}; it is of {', '.join(SIDES)}, the last at least")
    loader = FileSystemLoader(TEMPLATES)
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sides = [side for side in SIDES if side in results.judged]
    return pages.get_template("unlearning.html.jinja").render(
        results=results,
        verdict=verdict(results),
        sides=[(side, SIDES[side]) for side in sides],
        groups=groups(results, sides),
        plots=[(plot, Markup(plot.svg)) for plot in distributions(outputs)],
        facts=[(title, flatten(of)) for title, of in (results.facts or {}).items() if of],
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
    )


def verdict(results: Results) -> str:
    """What happened, in a line of plain words; run times are compared only where both are of one device."""
    found = {side: values(judged) for side, judged in results.judged.items()}
    own, other, before = found[UNLEARNED], found.get(RETRAINED), found.get(ORIGINAL)
    line = f"after {results.method}, {own['UA']:.1f} % of the forget set is misclassified"
    line += f" ({before['UA']:.1f} % before)" if before else ""
    if other is None:
        return f"{line}; {own['TA']:.1f} % of the test set is right. No retrained model says how good that is"
    line += f", where retraining comes to {other['UA']:.1f} %; on the test set {own['TA']:.1f} % is right"
    line += f", retrained {other['TA']:.1f} %"
    if "Avg_gap" in own:
        line += f". The average gap to retraining is {own['Avg_gap']:.2f} points"
        line += f", doing nothing has {before['Avg_gap']:.2f}" if before and "Avg_gap" in before else ""
    devices = {results.judged[side].get("RTE", {}).get("device") for side in (RETRAINED, UNLEARNED)}
    if own.get("RTE") and other.get("RTE") and len(devices) == 1:
        line += f"; it took {100 * own['RTE'] / other['RTE']:.1f} % of retraining's time"
    return line


def groups(results: Results, sides: Sequence[str]) -> list[tuple[str, list[Line]]]:
    """The table: what was measured of at least one model, in groups."""
    made = []
    for title, keys in GROUPS.items():
        lines = [_line(key, [results.judged[side].get(key) for side in sides]) for key in keys]
        found = [line for line in lines if line is not None]
        if found:
            made.append((title, found))
    return made


def _line(key: str, entries: Sequence[Mapping[str, Any] | None]) -> Line | None:
    known = [entry for entry in entries if entry is not None]
    if not known:
        return None
    identity = MEASURES[key]
    direction = next((f": {entry['direction']}" for entry in known if "direction" in entry), "")
    why = next((f"; not measured: {entry['why']}" for entry in known if "why" in entry), "")
    unit = f", {identity.unit}" if identity.unit else ""
    cells = tuple(_number(entry, DIGITS[identity.unit]) for entry in entries)
    return Line(identity.name + unit, identity.meaning + direction + why, cells, identity.wanted)


def _number(entry: Mapping[str, Any] | None, digits: int) -> str:
    if entry is None or entry["value"] is None:
        return "–"
    return f"{entry['value']:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def distributions(outputs: Mapping[str, Parts]) -> list[Plot]:
    """For each model, how its confidence in the label is spread over the forget set and over the test set."""
    with matplotlib.rc_context(SETTINGS):
        return [_distribution(side, *required(outputs[side], "forget", "test")) for side in SIDES if side in outputs]


def _distribution(side: str, forget: Outputs, test: Outputs) -> Plot:
    figure = Figure(figsize=(5.6, 3.0), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for label, part, color in (("forget", forget, FORGET), ("test", test, RETAIN)):
        _histogram(axes, label, part, color)
    places = [float(np.log(p) - np.log1p(-p)) for p in TICKS]
    axes.set_xticks(places, [f"{100 * p:g} %" for p in TICKS])
    axes.set_xlabel("confidence in the label")
    axes.set_ylabel("share of samples, %")
    axes.grid(axis="y", alpha=0.15, linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=0.6, alpha=0.4)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    shares = [f"{name}: median confidence {_median(part)}" for name, part in (("forget", forget), ("test", test))]
    title = f"{side.capitalize()} model"
    return Plot(title, f"{SIDES[side]}.", inline(stream.getvalue(), side, title, "; ".join(shares)))


def _histogram(axes: Axes, label: str, part: Outputs, color: str) -> None:
    """Shares of the samples by margin, solid for the test set and filled for the forget set."""
    margins, weights = np.clip(part.margin, -EDGE, EDGE), np.full(len(part), 100 / len(part))
    shares, edges = np.histogram(margins, bins=BINS, range=(-EDGE, EDGE), weights=weights)
    filled = label == "forget"
    axes.stairs(shares, edges, fill=filled, color=color, alpha=0.45 if filled else 1, linewidth=1.6, label=label)


def _median(part: Outputs) -> str:
    return f"{100 * float(np.median(np.exp(part.log_confidence))):.2f} %"
