"""The figures of the generation benchmark as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS, PLAIN, SINGLE = "erase generate", "diffusers, same batch", "diffusers, one prompt at a time"
TARGETS = {PLAIN: 1.0, SINGLE: 1.5}
"""How many times as fast as these ours has to be."""
PHASES = {
    "make": "the base's pictures",
    "resume": "a hundred of them damaged, the rest found",
    "read": "verified and read as a stream",
    "other side": "the erased model's pictures",
    "score": "both sides and their pairs measured",
    "score again": "all found, nothing measured",
    "report": "`erase audit` where all is scored: intervals, results and page",
}
"""Of the setting `scale`, in order, and what each does."""
RESUMING = ("resume", "score again")
RESUME_SECONDS = 10.0
"""The most that going on with 30,000 prompts may take."""
REPORT_MB = 20.0
"""The most that the page may weigh."""
GROWTH = 1.25
"""Ten times the rows may take so much more memory in a phase: the lists of rows, pictures and scores, no pixels."""
Figures = dict[str, Any]


def ratios(rates: Mapping[str, Sequence[float]], name: str) -> list[float]:
    """The first contender's rate over another's, round by round."""
    return [a / b for a, b in zip(next(iter(rates.values())), rates[name], strict=True)]


def spread(values: Sequence[float]) -> str:
    """Median, and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def render(figures: Figures) -> str:
    """A Markdown table."""
    found = figures["machine"]
    where = found["gpu"] or f"{found['cpu']}, {found['threads']} threads on {found['cores']} cores"
    commit = (found["git_commit"] or "unknown")[:12]
    lines = [f"# Generating images: `{figures['setting']}`", ""]
    lines += [f"{where}; torch {found['libraries']['torch']}, commit {commit}.", ""]
    lines += of_scale(figures["cases"]) if "cases" in figures else of_rates(figures["rates"], figures["batch"])
    return "\n".join([*lines, ""])


def of_scale(cases: Sequence[Figures]) -> list[str]:
    """Seconds and memory by size; the first case is the smallest."""
    lines = [
        "| rows | phase | images | seconds | peak memory, MiB | page, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        for name in PHASES:
            one, small = case[name], cases[0][name]
            cells = [f"{one['images']:,}"]
            cells += [limited(one["seconds"], RESUME_SECONDS if name in RESUMING else None, 1)]
            cells += [limited(one["peak_mib"], GROWTH * small["peak_mib"], 0)]
            cells += [limited(one["report_mb"], REPORT_MB, 1) if "report_mb" in one else ""]
            lines.append(f"| {case['rows']:,} | {name} | {' | '.join(cells)} |")
    rules = f"To go on has to take at most {RESUME_SECONDS:.0f} s, the start of Python not counted; ten times the rows "
    rules += f"{GROWTH:.2f} times the memory of a phase; the page {REPORT_MB:.0f} MB."
    return [*lines, "", *(f"- {name}: {what}" for name, what in PHASES.items()), "", rules]


def limited(value: float, most: float | None, digits: int) -> str:
    """A figure, and whether it is more than it may be."""
    return f"{value:.{digits}f}" + (" missed" if most is not None and value > most else "")


def of_rates(rates: Mapping[str, Sequence[float]], batch: int) -> list[str]:
    """Images a second, and the first contender's ratio to each."""
    first, values = next(iter(rates.items()))
    lines = [f"Batch {batch}. Median and quartiles over {len(values)} rounds.", ""]
    lines += [f"| | images a second | `{first}` / this | wanted |", "| --- | --- | --- | --- |"]
    for name, found in rates.items():
        ratio, target = ratios(rates, name), TARGETS.get(name)
        missed = " missed" if target and statistics.median(ratio) < target else ""
        wanted = f"≥ {target:.1f}{missed}" if target else ""
        lines.append(f"| {name} | {spread(found)} | {spread(ratio)} | {wanted} |")
    return lines
