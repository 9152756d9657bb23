"""Many methods, settings and seeds: means, spreads and a table with the best average gap marked."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from erase.evaluation.trials import spread
from erase.evaluation.unlearning.judge import MEASURES

RETRAIN, AGAIN, NOTHING = "retrain", "retrain, another seed", "nothing"
"""Training anew without the forget set, the same from other weights, and leaving the model as it is."""
REFERENCES = (RETRAIN, AGAIN, NOTHING)
"""The rows that methods are compared with: no gap below that of ``AGAIN`` is told from chance."""
METRICS = ("UA", "RA", "TA", "MIA", "Avg_gap", "JS", "ToW", "RTE")
DIGITS = {"JS": 3, "ToW": 3, "JS_nats": 3, "KL": 3, "RTE": 1}
"""Decimals, where they are not two."""


@dataclass(frozen=True)
class Row:
    """One run."""

    method: str
    setting: str
    """Data and what is forgotten, such as "digits, 10 % flipped"."""
    seed: int
    values: Mapping[str, float]
    """As ``judge.values`` gives them; empty for a run that diverged."""


def by_method(rows: Iterable[Row], setting: str) -> dict[str, list[Row]]:
    """The runs of each method in a setting: the references, then the rest as they came."""
    of = [row for row in rows if row.setting == setting]
    groups: dict[str, list[Row]] = {name: [] for name in REFERENCES}
    for row in of:
        groups.setdefault(row.method, []).append(row)
    return {name: group for name, group in groups.items() if group}


def settings_of(rows: Iterable[Row]) -> list[str]:
    """The settings, as they came."""
    return list(dict.fromkeys(row.setting for row in rows))


def measured(group: Iterable[Row], metric: str) -> list[float]:
    """A metric of each run that has it."""
    return [row.values[metric] for row in group if metric in row.values]


def diverged(group: Sequence[Row]) -> str:
    """How many of the runs did, in words; nothing where none did."""
    lost = sum(not row.values for row in group)
    return f"{lost} of {len(group)} diverged" if lost else ""


def tossed(group: Sequence[Row]) -> str:
    """How many runs SalUn's attack takes far off alone, in words: dMIA of 50 points or more, dUA of 10 or fewer.

    It tells members by the confidence, and where a network has hardly any left for a class, a support vector machine
    far from all that it was fitted on calls nearly all of the class members, or none.
    """
    lost = sum(abs(row.values.get("dMIA", 0.0)) >= 50 and abs(row.values.get("dUA", 0.0)) <= 10 for row in group)
    return f"{lost} of {len(group)} by MIA" if lost else ""


def best(groups: Mapping[str, Sequence[Row]], metric: str = "Avg_gap") -> set[str]:
    """The approximate methods of the smallest mean, among those that no run of diverged."""
    means = {
        name: statistics.mean(found)
        for name, group in groups.items()
        if name not in REFERENCES and len(found := measured(group, metric)) == len(group)
    }
    return {name for name, mean in means.items() if mean == min(means.values())}


def table(rows: Sequence[Row], metrics: Sequence[str] = METRICS) -> str:
    """A Markdown table for each setting: a row for each method, mean and standard deviation over the seeds.

    The best average gap of the approximate methods is bold. A run that diverged is counted, not averaged.
    """
    lines = []
    for setting in settings_of(rows):
        groups = by_method(rows, setting)
        first = best(groups)
        names = " | ".join(MEASURES[metric].name + _unit(metric) for metric in metrics)
        lines += [f"### {_escape(setting)}", "", f"| method | runs | {names} |", "|---|---|" + "---|" * len(metrics)]
        for method, group in groups.items():
            cells = [spread(measured(group, metric), DIGITS.get(metric, 2)) for metric in metrics]
            if method in first:
                cells = [f"**{c}**" if m == "Avg_gap" else c for m, c in zip(metrics, cells, strict=True)]
            lines.append(f"| {_escape(method)} | {_runs(group)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def summary(rows: Sequence[Row], metric: str = "Avg_gap") -> str:
    """One Markdown table of a metric: a row for each method, a column for each setting; a dash where it never ran."""
    settings = settings_of(rows)
    groups = {setting: by_method(rows, setting) for setting in settings}
    methods = dict.fromkeys(name for setting in settings for name in groups[setting] if name != RETRAIN)
    lines = [f"| method | {' | '.join(map(_escape, settings))} |", "|---|" + "---|" * len(settings)]
    for method in methods:
        cells = [_cell(groups[setting], method, metric) for setting in settings]
        lines.append(f"| {_escape(method)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(groups: Mapping[str, Sequence[Row]], method: str, metric: str) -> str:
    group = groups.get(method, ())
    if not group:
        return "–"
    return f"**{shown(group, metric)}**" if method in best(groups, metric) else shown(group, metric)


def shown(group: Sequence[Row], metric: str) -> str:
    """Mean and standard deviation of the runs that have the metric; how many diverged, or are far off by MIA alone."""
    found = [spread(measured(group, metric), DIGITS.get(metric, 2))] if any(row.values for row in group) else []
    alone = tossed(group) if metric == "Avg_gap" else ""
    return ", ".join([*found, *filter(None, [diverged(group), alone])])


def _unit(metric: str) -> str:
    unit = MEASURES[metric].unit
    return f", {unit}" if unit else ""


def _runs(group: Sequence[Row]) -> str:
    lost = sum(not row.values for row in group)
    return f"{len(group)}, {lost} diverged" if lost else str(len(group))


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
