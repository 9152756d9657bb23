"""A study as a picture: the average gap of each method, and which way it misses retraining."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from erase.errors import UserError
from erase.evaluation.panels import FORGET, INK, LUR, RETAIN
from erase.evaluation.plots import LOG_ABOVE, SETTINGS
from erase.evaluation.unlearning.study import AGAIN, NOTHING, RETRAIN, Row, by_method, diverged, measured, settings_of
from erase.provenance import write_text

DAY = {INK: "#1d1f23", FORGET: "#b3471d", RETAIN: "#2b5aa8", LUR: "#5f4a9e"}
"""Colors of a file that stands alone, on white: a page's own cannot reach into it."""
PANEL = (4.6, 1.3, 0.19)
"""Inches: the width of a panel, its height without methods, and the height of a method."""
SMALL = 0.1
"""Points below which no gap is drawn larger than it is: the axis of gaps is linear there, and 0 has a place."""
FAR = 20.0
"""Points beyond which both axes of the differences become logarithmic outside of one point."""


def write_plot(file: Path, rows: Sequence[Row], ours: str = "lur") -> None:
    """Two panels for each setting, as an SVG: methods whose name begins with ``ours`` in a color of their own."""
    settings = [setting for setting in settings_of(rows) if ranked(by_method(rows, setting))]
    if not settings:
        raise UserError("study: found no run with an average gap; judge runs against a retrained model first")
    width, rest, each = PANEL
    heights = [max(3.0, rest + each * len(ranked(by_method(rows, setting)))) for setting in settings]
    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(2 * width, sum(heights)), layout="constrained", facecolor="white")
        grid = figure.subplots(len(settings), 2, squeeze=False, height_ratios=heights)
        for axes, setting in zip(grid, settings, strict=True):
            groups = by_method(rows, setting)
            _gaps(axes[0], groups, setting, ours)
            _directions(axes[1], groups, ours)
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    for stand_in, color in DAY.items():
        text = text.replace(stand_in, color)
    write_text(file, text)


def ranked(groups: Mapping[str, Sequence[Row]]) -> list[str]:
    """Methods by their mean average gap, smallest first, and after them those of which runs diverged, likewise.

    Retraining, from which the gap is, has none.
    """
    means = {name: statistics.mean(found) for name, group in groups.items() if (found := measured(group, "Avg_gap"))}
    methods = [name for name in means if name != RETRAIN]
    return sorted(methods, key=lambda name: (bool(diverged(groups[name])), means[name]))


def _plain(value: float, _: float) -> str:
    return f"{value:g}"


def _color(method: str, ours: str) -> str:
    return LUR if method.lower().startswith(ours.lower()) else FORGET if method in (AGAIN, NOTHING) else RETAIN


def _gaps(axes: Axes, groups: Mapping[str, Sequence[Row]], setting: str, ours: str) -> None:
    """A line for each method: mean and standard deviation, best on top, each run as a faint dot."""
    methods, all_found = ranked(groups), list[float]()
    for place, method in enumerate(methods):
        found, color = measured(groups[method], "Avg_gap"), _color(method, ours)
        bar = statistics.stdev(found) if len(found) > 1 else 0.0
        axes.plot(found, [place] * len(found), ".", color=color, alpha=0.35, markersize=4)
        axes.errorbar(statistics.mean(found), place, xerr=bar, fmt="o", color=color, capsize=2, linewidth=1)
        all_found += found
    names = [", ".join(filter(None, (method, diverged(groups[method])))) for method in methods]
    axes.set_yticks(range(len(methods)), [f"{name}  {place}" for place, name in enumerate(names, start=1)])
    axes.invert_yaxis()
    least = min((value for value in all_found if value > 0), default=0.0)
    if least and max(all_found) > LOG_ABOVE * least:
        axes.set_xscale("symlog", linthresh=max(least, SMALL))
        axes.set_xlim(left=0)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(_plain)
    axes.grid(axis="x", alpha=0.15, linewidth=0.6)
    axes.set_title(setting, fontsize=9)
    axes.set_xlabel("Avg. Gap to retraining, points: mean and standard deviation")


def _directions(axes: Axes, groups: Mapping[str, Sequence[Row]], ours: str) -> None:
    """Each method's number at its mean difference to retraining: in forgetting across, on the test set upward."""
    axes.axhline(0, color=INK, linewidth=0.6, alpha=0.5)
    axes.axvline(0, color=INK, linewidth=0.6, alpha=0.5)
    for number, method in enumerate(ranked(groups), start=1):
        across, up = (measured(groups[method], key) for key in ("dUA", "dTA"))
        if not (across and up):
            continue
        point, color = (statistics.mean(across), statistics.mean(up)), _color(method, ours)
        axes.plot(*point, "o", color=color, markersize=4, alpha=0.8)
        axes.annotate(str(number), point, (3, 3), textcoords="offset points", color=color, fontsize=8)
    if max(map(abs, (*axes.get_xlim(), *axes.get_ylim()))) > FAR:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_yscale("symlog", linthresh=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_plain)
    axes.margins(0.12)
    axes.grid(alpha=0.15, linewidth=0.6)
    axes.set_title("Where it misses: retraining is at the cross", fontsize=9)
    axes.set_xlabel("UA - UA of retraining, points (left: forgets less)")
    axes.set_ylabel("TA - TA of retraining, points")
