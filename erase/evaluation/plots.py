"""The step log as figures: inline SVG whose words are text and whose colors are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from erase.evaluation.panels import FORGET, INK, LUR, PANELS, RETAIN, Curve, Panel

StepLines = Sequence[Mapping[str, Any]]
"""The lines of a step log."""

PAGE_COLORS = {INK: "currentColor", FORGET: "var(--forget)", RETAIN: "var(--retain)", LUR: "var(--lur)"}
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "erase",  # the same log gives the same page
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
}
SIZE = (5.6, 3.0)
"""Inches; the page scales it."""
MAX_POINTS, MAX_MEANS = 1500, 300
"""Of a curve of values, and of one of running means: a page of many panels stays small."""
FEW = 20
"""Fewer values than this are drawn as they are."""
LOG_ABOVE = 30.0
"""An axis is logarithmic if its largest value is this many times its smallest."""


@dataclass(frozen=True)
class Plot:
    """A figure as it stands in the page."""

    title: str
    note: str
    svg: str


def training_plots(log: StepLines) -> list[Plot]:
    """A figure for each panel that a log of two steps or more has a value for."""
    panels = PANELS if len(log) > 1 else ()
    with matplotlib.rc_context(SETTINGS):
        return [plot for number, panel in enumerate(panels) if (plot := _draw(panel, log, f"plot{number}"))]


def series(log: StepLines, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which ``key`` was measured, and its values there."""
    lines = [(line["step"], line[key]) for line in log if line.get(key) is not None]
    steps, values = np.array(lines, dtype=float).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def window(count: int) -> int:
    """How many values the running mean of ``count`` values spans: a twentieth, at least five; of few, just one."""
    return 1 if count < FEW else max(5, count // 20)


def running_mean(values: np.ndarray, span: int) -> np.ndarray:
    """The mean of each value and those before it, ``span`` at most."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - span)
    return (total[stop] - total[start]) / (stop - start)


def _draw(panel: Panel, log: StepLines, prefix: str) -> Plot | None:
    found = {curve: series(log, curve.key) for curve in panel.curves}
    found = {curve: data for curve, data in found.items() if len(data[0])}
    if not found:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for curve, (steps, values) in found.items():
        _plot_curve(axes, panel, curve, steps, values)
    _finish(axes, panel, [values for _, values in found.values()])
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    description = " ".join(_describe(panel, curve, *data) for curve, data in found.items())
    return Plot(panel.title, panel.note, inline(stream.getvalue(), prefix, panel.title, description))


def _plot_curve(axes: Axes, panel: Panel, curve: Curve, steps: np.ndarray, values: np.ndarray) -> None:
    mean = running_mean(values, window(len(values)) if panel.smooth else 1)
    stride, apart = -(-len(values) // MAX_POINTS), -(-len(values) // MAX_MEANS)
    if panel.raw and panel.smooth:
        axes.plot(steps[::stride], values[::stride], color=curve.color, alpha=0.28, linewidth=0.8)
    axes.plot(
        steps[::apart],
        mean[::apart],
        color=curve.color,
        linewidth=1.8,
        dashes=curve.dashes or (None, None),
        marker="o" if len(mean) == 1 else None,
        label=curve.label,
    )


def _finish(axes: Axes, panel: Panel, values: Sequence[np.ndarray]) -> None:
    lowest, highest = min(v.min() for v in values), max(v.max() for v in values)
    if lowest > 0 and highest > LOG_ABOVE * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if panel.zero:
        axes.axhline(0, color=INK, linewidth=0.8, alpha=0.6)
    if len(values) > 1:
        axes.legend(frameon=False, ncols=min(4, len(values)), loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    axes.grid(axis="y", alpha=0.15, linewidth=0.6)
    axes.tick_params(length=3, width=0.6)
    axes.margins(x=0.01)
    axes.set_xlabel("step")


def _describe(panel: Panel, curve: Curve, steps: np.ndarray, values: np.ndarray) -> str:
    mean, what = running_mean(values, window(len(values))), "running mean "
    if not panel.smooth:
        mean, what = values, ""
    return (
        f"{curve.label}: {what}{mean[0]:.3g} at step {steps[0]:.0f}, {mean[-1]:.3g} at step {steps[-1]:.0f}; "
        f"lowest value {values.min():.3g}, highest {values.max():.3g}."
    )


def inline(svg: str, prefix: str, title: str, description: str) -> str:
    """Matplotlib's file as an element of the page: named, described, in its colors, its ids its own."""
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    if box is None:
        raise ValueError("the figure has no viewBox: matplotlib wrote an SVG of another kind")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body[body.index(">") + 1 :])
    for stand_in, color in PAGE_COLORS.items():
        body = body.replace(stand_in, color)
    return (
        f'<svg role="img" aria-labelledby="{prefix}-title {prefix}-desc" viewBox="{box[1]}">'
        f'<title id="{prefix}-title">{escape(title)}</title><desc id="{prefix}-desc">{escape(description)}</desc>{body}'
    )
