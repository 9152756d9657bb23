"""The figures of the generation benchmark as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS, PLAIN, SINGLE = "erase generate", "diffusers, same batch", "diffusers, one prompt at a time"
TARGETS = {PLAIN: 1.0, SINGLE: 1.5}
"""How many times as fast as these ours has to be."""
PHASES = ("make", "resume", "read")
RESUME_SECONDS = 10.0
"""The most that going on with 30,000 images may take."""
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
    """Seconds and memory by size."""
    lines = ["| rows | phase | images made or read | seconds | peak memory, MiB |", "| --- | --- | --- | --- | --- |"]
    for case in cases:
        for name in PHASES:
            one = case[name]
            late = " missed" if name == "resume" and one["seconds"] > RESUME_SECONDS else ""
            cells = f"{one['images']:,} | {one['seconds']:.1f}{late} | {one['peak_mib']:.0f}"
            lines.append(f"| {case['rows']:,} | {name} | {cells} |")
    return [*lines, "", f"To resume has to take at most {RESUME_SECONDS:.0f} s, the start of Python not counted."]


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
