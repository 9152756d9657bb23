"""How long LUR's look-ahead should be: each way of setting alpha, over four orders of magnitude.

    python pipelines/alpha_sweep.py --output runs/alpha_sweep          # about 1 hour on 2 CPU cores
    python pipelines/alpha_sweep.py --output runs/alpha_sweep --render # the table and the plot of what is there

The shipped configuration with half its steps, half its batch and twice its learning rate; alpha and the seeds change.
The target is the one that is hardest to keep others from: ``circle``, with ``ring`` and ``moon`` kept. Seeds that no
other result uses. Several may run at a time and share the work. Results, table and plot:
``pipelines/results/alpha_sweep*``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from erase.command_line import quieten
from erase.evaluation.trials import Trial, TrialStore, spread
from erase.provenance import write_text

TARGET, TRAINING_SEED, EVALUATION_SEED = "circle", 200, 2000
SHORTER = ("max_train_steps=100", "train_batch_size=8", "learning_rate=4.0e-4", "probe_every=0")
SAMPLING_STEPS = 8
STORE = Path(__file__).parent / "results" / "alpha_sweep"
SWEEPS: dict[str, tuple[float, ...]] = {
    "correction": (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "displacement": (1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
    "absolute": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
}
"""The way of setting alpha, and its one number: a ratio, or alpha itself."""
DEFAULT = ("correction", 0.1)
SCORES = {"UA": "UA", "IRA": "IRA", "CRA_kept": "CRA, kept", "CRA_erased": "CRA, erased"}


def trials(seeds: Iterable[int]) -> list[Trial]:
    """Every way and value, and the plain sum at as many steps, which is alpha = 0."""
    made = []
    for seed in seeds:
        for way, values in {**SWEEPS, "none": (0.0,)}.items():
            for value in values:
                key = "value" if way == "absolute" else "ratio"
                alpha = "{name: absolute, value: 0.0}" if way == "none" else f"{{name: {way}, {key}: {value}}}"
                name = f"{way}-{value:g}-{seed}"
                labels = (("way", way), ("value", value))
                changes = (f"update.alpha={alpha}", *SHORTER)
                seeds_of = TRAINING_SEED + seed, EVALUATION_SEED + seed
                made.append(Trial(name, TARGET, *seeds_of, changes, labels, SAMPLING_STEPS))
    return made


def grouped(results: Iterable[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """The results of each way and value."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda r: (r["way"], r["value"], r["seed"])):
        groups.setdefault((result["way"], result["value"]), []).append(result)
    return groups


def values_of(group: list[dict[str, Any]], score: str) -> list[float]:
    """A score of each run, in per cent; a run that diverged has none."""
    return [100 * r["erased"]["scores"][score] for r in group if r["erased"]]


def render(results: Iterable[dict[str, Any]]) -> str:
    """A Markdown table: mean and standard deviation over seeds; LUR's correction, a run's median, of each."""
    lines = [
        f"| alpha by | value | runs | {' | '.join(SCORES.values())} | mean cosine, as LUR saw it | correction |",
        "|---" * 9 + "|",
    ]
    for (way, value), group in grouped(results).items():
        cells = [spread(values_of(group, score)) for score in SCORES]
        courses = [r["gradients"] for r in group if r["erased"]]
        cells.append(spread([course["mean_cosine"] for course in courses], 2))
        measured = [c for course in courses if (c := course["correction"]) is not None]
        cells.append(", ".join(f"{correction:.2g}" for correction in measured) or "-")
        mark = " (default)" if (way, value) == DEFAULT else ""
        lost = sum(not r["erased"] for r in group)
        runs = f"{len(group)}, {lost} diverged" if lost else str(len(group))
        lines.append(f"| {way}{mark} | {value:g} | {runs} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(results: Iterable[dict[str, Any]], file: Path) -> None:
    """One panel for each way: the scores against the value, the default marked."""
    groups = grouped(results)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, len(SWEEPS), sharey=True)
    for axes, (way, values) in zip(panels, SWEEPS.items(), strict=True):
        for score, label in SCORES.items():
            found = [(v, statistics.mean(s)) for v in values if (s := values_of(groups.get((way, v), []), score))]
            axes.plot(*zip(*found, strict=True), marker="o", markersize=3, label=label) if found else None
        axes.set_xscale("log")
        axes.set_xlabel("alpha" if way == "absolute" else f"{way} ratio")
        if way == DEFAULT[0]:
            axes.axvline(DEFAULT[1], color="black", linewidth=0.8, linestyle=":")
        axes.grid(alpha=0.2)
    panels[0].set_ylabel("per cent")
    panels[-1].legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Runs what is missing, then writes table and plot beside the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the models while they are judged")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--render", action="store_true", help="only write what the runs that are there give")
    given = parser.parse_args()
    store = TrialStore(STORE, given.output)
    if not given.render:
        quieten()
        store.make(trials(given.seeds))
    found = list(store.results().values())
    write_text(STORE.with_suffix(".md"), render(found))
    plot(found, STORE.with_suffix(".svg"))
    print(render(found))


if __name__ == "__main__":
    main()
