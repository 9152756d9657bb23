"""The benchmark's figures as a table and as a picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

Figures = Mapping[str, Any]
SUM = "weighted_sum"
LUR_TARGETS = {"lur chained": 1.55, "lur alternating": 1.05, "lur alternating, never measured": 1.05}
GRAM_TARGETS = dict.fromkeys(("pcgrad", "upgrad", "mgda", "cagrad", "nash", "gradient_projection"), 1.10)
TIME_TARGETS = {**LUR_TARGETS, **GRAM_TARGETS}
"""Most time of a step that a rule may take, as a ratio to the plain sum's."""
MEMORY_TARGETS = {"full": 1.20, "cross_attention": 1.10, "lora": 1.10}
"""The same of memory, for the rules of LUR that have a target of time, by the parameters that move."""
README_RULES = ("lur chained", "lur alternating", "lur exact", "pcgrad", "mgda", "cagrad", "nash", "weighted_sum again")
"""What the README shows; the last says how far to trust the others."""
MARKERS = "osD^vP"
HEADER = (
    "| rule | evaluations | time: median [quartiles] | mean | target | peak memory | target |",
    "|---|---|---|---|---|---|---|",
)
NOTES = """Ratios to `weighted_sum` in the same round. `weighted_sum again` is the same rule a second time: its
distance from 1 is noise. `lur alternating` measures its correction at some early steps and at every 25th, by a step
of three evaluations, which is in its mean if the rounds reach one (its evaluations tell), and not in its median.
`alternating_steps` looks at one objective a step, so that it needs two steps for what the others do in one. Memory:
the model, gradients, buffers and activations, without an optimizer's.
"""


@dataclass(frozen=True)
class Ratios:
    """One rule's cost in one case, as ratios to the plain sum's."""

    median: float
    lower: float
    upper: float
    mean: float
    """Of all steps together."""
    memory: float
    evaluations: float

    @classmethod
    def of(cls, rule: Figures, plain: Figures) -> Ratios:
        """From the two rules' raw figures."""
        each = [mine / other for mine, other in zip(rule["seconds"], plain["seconds"], strict=True)]
        quartiles = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
        return cls(
            median=quartiles[1],
            lower=quartiles[0],
            upper=quartiles[2],
            mean=sum(rule["seconds"]) / sum(plain["seconds"]),
            memory=rule["peak_bytes"] / plain["peak_bytes"],
            evaluations=statistics.mean(rule["evaluations"]),
        )


def targets(name: str, case: Figures) -> tuple[float | None, float | None]:
    """The most time and memory that a rule may take, where that is set."""
    return TIME_TARGETS.get(name), MEMORY_TARGETS[case["parameters"]] if name in LUR_TARGETS else None


def ratios(case: Figures) -> dict[str, Ratios | None]:
    """Each rule's; ``None`` where it ran out of memory."""
    plain = case["rules"][SUM]
    if "out_of_memory" in plain:
        return dict.fromkeys(case["rules"])
    return {name: None if "out_of_memory" in rule else Ratios.of(rule, plain) for name, rule in case["rules"].items()}


def title(case: Figures) -> str:
    """What is measured."""
    share = f"{case['trainable'] / 1e6:.2f} of {case['all_parameters'] / 1e6:.2f} million parameters"
    way = "with" if case["checkpointing"] == "on" else "without"
    return f"`{case['parameters']}` ({share}), {way} gradient checkpointing"


def origin(case: Figures) -> str:
    """Where and how it was measured."""
    found = case["machine"]
    where = found["gpu"] or f"{found['cpu']}, {found['threads']} threads on {found['cores']} cores"
    plain = case["rules"][SUM]
    absolute = "out of memory"
    if "out_of_memory" not in plain:
        size = f"{plain['peak_bytes'] / 2**20:.0f} MiB"
        absolute = f"{statistics.median(plain['seconds']):.3f} s and {size}, median of {len(plain['seconds'])} steps"
    retain, forget = case["batch"]
    commit, changes, _ = (found["git_commit"] or "unknown").partition("+changes")
    made = f"torch {found['libraries']['torch']}, commit {commit[:12]}{changes}"
    return f"{where}; {made}. Batch {retain} + {forget}, {case['precision']}. `{SUM}`: {absolute}."


def render(figures: Figures) -> str:
    """A Markdown table for each case."""
    lines = [f"# Cost of an update: `{figures['setting']}`", "", NOTES]
    for case in figures["cases"]:
        lines += [f"## {title(case)}", "", origin(case), "", *HEADER]
        lines += [row(name, found, *targets(name, case)) for name, found in ratios(case).items()]
        lines.append("")
    return "\n".join(lines)


def summary(figures: Figures, rules: Sequence[str]) -> str:
    """The README's table: the median ratio of time and the ratio of memory of some rules in every case."""
    found = [(case["parameters"], ratios(case)) for case in figures["cases"]]
    lines = [
        f"| rule | {' | '.join(f'time, {p}' for p, _ in found)} | {' | '.join(f'memory, {p}' for p, _ in found)} |"
    ]
    lines.append("|---" * (1 + 2 * len(found)) + "|")
    for name in rules:
        cells = [of[name] for _, of in found]
        times = [f"{cell.median:.2f}" if cell else "out of memory" for cell in cells]
        memory = [f"{cell.memory:.2f}" if cell else "" for cell in cells]
        lines.append(f"| {name} | {' | '.join(times)} | {' | '.join(memory)} |")
    return "\n".join(lines) + "\n"


def row(name: str, found: Ratios | None, time: float | None, memory: float | None) -> str:
    """One rule's line."""
    if found is None:
        return f"| {name} | out of memory | | | {bound(time, None)} | | {bound(memory, None)} |"
    spread = f"{found.median:.3f} [{found.lower:.3f}, {found.upper:.3f}]"
    kept = f"{found.mean:.3f} | {bound(time, found.median)} | {found.memory:.3f} | {bound(memory, found.memory)}"
    return f"| {name} | {found.evaluations:.2f} | {spread} | {kept} |"


def bound(target: float | None, value: float | None) -> str:
    """``≤ 1.05``, and whether the value is beyond it."""
    if target is None:
        return ""
    return f"≤ {target:.2f}" + (" missed" if value is not None and value > target else "")


def draw(figures: Figures) -> str:
    """An SVG: time and memory of every rule, a mark for each case, and the targets as upright lines."""
    names = list(dict.fromkeys(name for case in figures["cases"] for name in case["rules"]))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "erase", "font.size": 9}):
        figure = Figure(figsize=(9.0, 1.5 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for index, case in enumerate(figures["cases"]):
            label = f"{case['parameters']}, checkpointing {case['checkpointing']}"
            lift = 0.6 * ((index + 0.5) / len(figures["cases"]) - 0.5)
            for name, found in ratios(case).items():
                if found is None:
                    continue
                y, style = names.index(name) + lift, {"color": f"C{index}", "markersize": 4}
                whiskers = [[found.median - found.lower], [found.upper - found.median]]
                mark, label = MARKERS[index % len(MARKERS)], "" if name != SUM else label
                axes[0].errorbar(found.median, y, xerr=whiskers, fmt=mark, label=label, linewidth=1, **style)
                axes[1].plot(found.memory, y, mark, **style)
                for panel, target in zip(axes, targets(name, case), strict=True):
                    if target is not None:
                        panel.plot([target, target], [y - 0.15, y + 0.15], color="black", linewidth=1)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        for panel, words in zip(axes, ("time of a step", "peak memory"), strict=True):
            panel.set_xlabel(f"{words} / {SUM}'s")
            panel.axvline(1.0, color="gray", linewidth=0.6)
            panel.grid(axis="x", alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
