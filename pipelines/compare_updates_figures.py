"""What compare_updates.py makes of its results: tables in Markdown, and plots."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from erase.evaluation.trials import spread
from erase.provenance import write_text

Results = Sequence[dict[str, Any]]
COLUMNS = {"UA": "UA", "IRA": "IRA", "CRA_kept": "CRA, kept", "CRA_erased": "CRA, erased", "none_erased": "none"}
SUM = "weighted_sum"
"""The rule that the others are compared with."""
RUINED = {"UA": 1.0, "IRA": 0.0, "CRA_kept": 0.0, "CRA_erased": 0.0, "none_erased": 1.0}
"""The scores of a run that diverged: its pictures show nothing."""


def write(compared: Results, weighed: Results, folder: Path) -> None:
    """``compare_updates.md`` and its Pareto plot; ``compare_updates_weights``, table and plot over forget weights."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "erase"}):  # the same results, the same bytes
        write_text(folder / "compare_updates.md", table(compared))
        if compared:
            pareto(compared, folder / "compare_updates.svg")
        if weighed:
            write_text(folder / "compare_updates_weights.md", weight_table(weighed))
            weights(weighed, folder / "compare_updates_weights.svg")


def panels_of(results: Results) -> list[tuple[str, str]]:
    """The pairs of loss and parameters that there are results for."""
    return list(dict.fromkeys((r["loss"], r["parameters"]) for r in results))


def by_rule(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The results of each rule."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["rule"], []).append(result)
    return groups


def scores_of(result: dict[str, Any]) -> dict[str, float]:
    """A run's shares, 0 to 1."""
    return dict(result["erased"]["scores"]) if result["erased"] else RUINED


def scores(results: Results, name: str) -> list[float]:
    """A score of each run, in per cent."""
    return [100 * scores_of(r)[name] for r in results]


def table(results: Results) -> str:
    """A table for each loss and selection, a row for each rule.

    UA and what is kept of each target have mean and standard deviation over the seeds; then come means over all runs.
    Below each are the rules beside the plain sum, and where the gradients conflict.
    """
    lines = []
    for loss, parameters in panels_of(results):
        of = [r for r in results if (r["loss"], r["parameters"]) == (loss, parameters)]
        targets = list(dict.fromkeys(r["target"] for r in of))
        each = [f"{target}: {what}" for target in targets for what in ("UA", "kept")]
        heads = ["rule", "runs", *each, *COLUMNS.values(), "final cosine at theta", "correction", "tuned"]
        lines += [f"### {loss}, {parameters}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [f"| {' | '.join(row(rule, group, targets))} |" for rule, group in by_rule(of).items()]
        for further in (pairs(of), conflict(of)):
            lines += ["", *further] if further else []
        lines.append("")
    return "\n".join(lines)


def pairs(results: Results) -> list[str]:
    """A table's lines: each rule beside the plain sum, run by run; none without the sum's runs."""
    sums = [r for r in results if r["rule"] == SUM]
    if not sums:
        return []
    lines = ["| rule | merit | merit over the sum's | UA over the sum's | kept over the sum's |", "|---" * 5 + "|"]
    for rule, group in by_rule(results).items():
        gains = [gain_over(sums, group, score) for score in (merit_in_per_cent, forgetting, keeping)]
        lines.append(f"| {' | '.join([rule, spread(list(map(merit_in_per_cent, group))), *gains])} |")
    return lines


def conflict(results: Results) -> list[str]:
    """A table's lines: where the gradients oppose each other, means over all runs; none of results that are older.

    Steps in conflict, in per cent, are by the gradients that the rule used; cosines are of both at theta, by the
    probes of a run, over all parameters and in each block of the UNet.
    """
    of = [r["gradients"] | {"rule": r["rule"]} for r in results if r["gradients"].get("blocks")]
    if not of:
        return []
    blocks = sorted({block for one in of for block in one["blocks"]})
    lines = [f"| {' | '.join(['rule', 'steps in conflict', 'cosine', *blocks])} |", "|---" * (3 + len(blocks)) + "|"]
    for rule, group in by_rule(of).items():
        shares = [100 * s for one in group if (s := one.get("steps_in_conflict")) is not None]
        cosines = [[one["mean_cosine"] for one in group], *([one["blocks"][b] for one in group] for b in blocks)]
        cells = [spread(shares), *(f"{statistics.mean(values):.2f}" for values in cosines)]
        lines.append(f"| {' | '.join([rule, *cells])} |")
    return lines


def merits(results: Results) -> str:
    """The README's first table: each rule's merit in each pair of loss and selection, the best mean of all first."""
    panels = panels_of(results)
    lines = [f"| {' | '.join(['rule', *map(', '.join, panels)])} |", "|---" * (1 + len(panels)) + "|"]
    for rule, group in best_first(results):
        of = [[merit_in_per_cent(r) for r in group if (r["loss"], r["parameters"]) == panel] for panel in panels]
        lines.append(f"| {' | '.join([rule, *map(spread, of)])} |")
    return "\n".join([*lines, ""])


def best_first(results: Results) -> list[tuple[str, list[dict[str, Any]]]]:
    """The results of each rule, by their mean merit."""
    return sorted(by_rule(results).items(), key=lambda item: -statistics.mean(map(merit, item[1])))


def summary(results: Results) -> str:
    """A README's table: UA and what is kept of each target, merit and cosine over all runs; the best merit first.

    Runs of one target and seed are alike in all but the rule, so merits are compared with the sum's pair by pair: the
    mean difference with its standard error, and how many pairs it is above 0 in.
    """
    lines = []
    for loss, parameters in panels_of(results):
        of = [r for r in results if (r["loss"], r["parameters"]) == (loss, parameters)]
        targets = list(dict.fromkeys(r["target"] for r in of))
        heads = [
            "rule",
            *(f"{t}: {what}" for t in targets for what in ("UA", "kept")),
            "merit",
            "merit over the sum's",
            "final cosine",
        ]
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for rule, group in best_first(of):
            cells = row(rule, group, targets)
            mean = spread(list(map(merit_in_per_cent, group)))
            gain = gain_over([r for r in of if r["rule"] == SUM], group, merit_in_per_cent)
            lines.append(f"| {' | '.join([rule, *cells[2 : 2 + 2 * len(targets)], mean, gain, cells[-3]])} |")
        lines.append("")
    return "\n".join(lines)


def gain_over(others: Results, group: Results, score: Callable[[dict[str, Any]], float]) -> str:
    """A score, in per cent, less another rule's, by target and seed: mean, standard error, and pairs above 0."""
    before = {(r["target"], r["seed"]): score(r) for r in others}
    gains = [score(r) - before[key] for r in group if (key := (r["target"], r["seed"])) in before]
    if len(gains) < 2 or all(r["rule"] == SUM for r in group):
        return "–"
    error = statistics.stdev(gains) / len(gains) ** 0.5
    return f"{statistics.mean(gains):+.1f} ± {error:.1f}, {sum(gain > 0 for gain in gains)} of {len(gains)}"


def merit(result: dict[str, Any]) -> float:
    """The harmonic mean of UA, IRA and CRA on kept prompts, 0 to 1."""
    found = scores_of(result)
    return statistics.harmonic_mean([found[name] for name in ("UA", "IRA", "CRA_kept")])


def merit_in_per_cent(result: dict[str, Any]) -> float:
    """The merit, 0 to 100."""
    return 100 * merit(result)


def row(rule: str, group: Results, targets: Sequence[str]) -> list[str]:
    """A rule's cells."""
    cells = []
    for target in targets:
        of = [r for r in group if r["target"] == target]
        cells += [spread(scores(of, "UA")), spread([keeping(r) for r in of])]
    means = [f"{statistics.mean(scores(group, name)):.1f}" for name in COLUMNS]
    cosines = [c for r in group if r["erased"] and (c := r["gradients"]["final_cosine"]) is not None]
    corrections = [c for r in group if r["erased"] and (c := r["gradients"].get("correction")) is not None]
    lost = sum(r["erased"] is None for r in group)
    runs = f"{len(group)}, {lost} diverged" if lost else str(len(group))
    setting = ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in group[0]["setting"].items())
    return [rule, runs, *cells, *means, spread(cosines, 2), spread(corrections, 2), setting]


def forgetting(result: dict[str, Any]) -> float:
    """UA, in per cent."""
    return 100 * scores_of(result)["UA"]


def keeping(result: dict[str, Any]) -> float:
    """The mean of IRA and CRA on kept prompts, in per cent."""
    found = scores_of(result)
    return 50 * (found["IRA"] + found["CRA_kept"])


def pareto(results: Results, file: Path) -> None:
    """Keeping against forgetting, a point for each rule with bars of a standard deviation.

    A row of panels for each loss, a column for each selection of parameters; each panel has limits of its own.
    """
    panels = panels_of(results)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    figure = Figure(figsize=(4.2 * len(columns), 3.5 * len(rows) + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for loss, selection in panels:
        axes = grid[rows.index(loss)][columns.index(selection)]
        axes.set_visible(True)
        of = [r for r in results if (r["loss"], r["parameters"]) == (loss, selection)]
        for rule, group in by_rule(of).items():
            forgotten, kept = scores(group, "UA"), [keeping(r) for r in group]
            bars = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (forgotten, kept)]
            mean = statistics.mean(forgotten), statistics.mean(kept)
            axes.errorbar(*mean, xerr=bars[0], yerr=bars[1], marker="o", capsize=2, linewidth=0.8, label=rule)
        axes.set_title(f"{loss}, {selection}", fontsize=9)
        axes.set_xlabel("forgotten: UA, %")
        axes.set_ylabel("kept: mean of IRA and CRA, %")
        axes.set(xlim=(None, 101), ylim=(None, 101))
        axes.grid(alpha=0.2)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    figure.savefig(file, metadata={"Date": None})


def weight_table(results: Results) -> str:
    """UA and what is kept at each forget weight, mean and standard deviation over seeds; each rule at its own rate."""
    lines = []
    for loss, parameters in panels_of(results):
        of = [r for r in results if (r["loss"], r["parameters"]) == (loss, parameters)]
        at = sorted({r["setting"]["forget_weight"] for r in of})
        heads = [f"{loss}, {parameters}", "rate", *(f"{weight:g}: UA, kept" for weight in at)]
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for rule, group in by_rule(of).items():
            runs = [[r for r in group if r["setting"]["forget_weight"] == weight] for weight in at]
            cells = [f"{spread(scores(r, 'UA'), 0)}, {spread([keeping(one) for one in r], 0)}" for r in runs]
            lines.append(f"| {' | '.join([rule, format(group[0]['setting']['learning_rate'], 'g'), *cells])} |")
        lines.append("")
    return "\n".join(lines)


def weights(results: Results, file: Path) -> None:
    """UA and what is kept against the forget weight, for each rule: how wide the range is that works."""
    panels = panels_of(results)
    figure = Figure(figsize=(4.2 * len(panels), 6), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False, sharex="col")
    for column, panel in enumerate(panels):
        of = [r for r in results if (r["loss"], r["parameters"]) == panel]
        for rule, group in by_rule(of).items():
            at = sorted({r["setting"]["forget_weight"] for r in group})
            runs = [[r for r in group if r["setting"]["forget_weight"] == weight] for weight in at]
            grid[0][column].plot(at, [statistics.mean(scores(r, "UA")) for r in runs], marker="o", label=rule)
            grid[1][column].plot(at, [statistics.mean(map(keeping, r)) for r in runs], marker="o", label=rule)
        grid[0][column].set_title(", ".join(panel), fontsize=9)
        grid[1][column].set_xlabel("forget weight")
        grid[1][column].set_xscale("log")
    grid[0][0].set_ylabel("forgotten: UA, %")
    grid[1][0].set_ylabel("kept: mean of IRA and CRA, %")
    grid[0][-1].legend(frameon=False, fontsize=7)
    figure.savefig(file, metadata={"Date": None})
