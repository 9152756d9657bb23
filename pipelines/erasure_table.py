"""The README's table: five targets, several training seeds, LUR and the plain sum on the same evaluations.

    python pipelines/erasure_table.py --output runs/table          # 1 hour and a quarter as two of these on 2 cores
    python pipelines/erasure_table.py --output runs/table --render # the table of the runs that are there

Each run is one erasure with the shipped configuration, only target, seed and rule changed, judged on every full
caption of Shapes World with seeds that training never draws, others for each training seed. A run with the same
settings that is in ``pipelines/results/erasure_table/`` is not made again: delete the folder to start from nothing.
Several of these may run at a time and share the work; one for each core, with OMP_NUM_THREADS=1, is fastest.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from erase import embedded
from erase.command_line import quieten
from erase.config import load
from erase.evaluation.trials import Trial, TrialStore, spread
from erase.provenance import write_text
from erase.training.erasure import ErasureRun

TARGETS = ("star", "circle", "ring", "dotted", "red")
EVALUATION_SEED = 1000
"""Of training seed 0; the next seeds follow."""
RULES: dict[str, tuple[str, ...]] = {
    "lur": (),
    "weighted_sum": ("update.name=weighted_sum", "max_train_steps={sum_steps}"),
}
COLUMNS = (
    "UA",
    "IRA",
    "CRA on kept prompts",
    "CRA on erased prompts",
    "called none: erased, kept",
    "steps in conflict",
)
STORE = Path(__file__).parent / "results" / "erasure_table"


def trial(target: str, rule: str, seed: int) -> Trial:
    """The shipped configuration; the sum takes half as many steps again: 2 gradient evaluations a step, not 3."""
    steps = load(ErasureRun, embedded.DEFAULT_CONFIG, ["output_dir=runs/trial"]).max_train_steps
    changed = tuple(override.format(sum_steps=steps * 3 // 2) for override in RULES[rule])
    return Trial(f"{target}-{rule}-{seed}", target, seed, EVALUATION_SEED + seed, changed, (("rule", rule),))


def in_order(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """By target, rule and seed; targets of the table first."""
    rank = {target: place for place, target in enumerate(TARGETS)}
    return sorted(results, key=lambda r: (rank.get(r["target"], len(rank)), r["target"], r["rule"], r["seed"]))


def render(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: mean and standard deviation over seeds, in per cent, with the base's figure for each."""
    lines = [
        f"| target | rule | seeds | {' | '.join(COLUMNS)} |",
        f"|---|---|---|{'---|' * len(COLUMNS)}",
    ]
    for target in dict.fromkeys(r["target"] for r in results):
        of = [r for r in results if r["target"] == target]
        before = list({r["seed"]: r["base"]["scores"] for r in of}.values())
        lines.append(f"| {target} | base | {len(before)} | {' | '.join(cells(before))} | |")
        for rule in dict.fromkeys(r["rule"] for r in of):
            runs = [r for r in of if r["rule"] == rule]
            conflict = percent([share for r in runs if (share := in_conflict(r["gradients"])) is not None])
            scores = cells([r["erased"]["scores"] for r in runs])
            lines.append(f"| {target} | {rule} | {len(runs)} | {' | '.join(scores)} | {conflict} |")
    return "\n".join(lines) + "\n"


def in_conflict(course: dict[str, Any]) -> float | None:
    """The share of steps at which the rule's own two gradients opposed each other; not every stored run has it."""
    older = None if course.get("at") == "theta" else course["conflict_share"]
    share: float | None = course.get("steps_in_conflict", older)
    return share


def percent(shares: Sequence[float]) -> str:
    """Shares in per cent, over the seeds."""
    return spread([100 * share for share in shares])


def cells(scores: Sequence[dict[str, Any]]) -> list[str]:
    """A row of the table, in the order of ``COLUMNS``, but for the last."""

    def column(name: str) -> str:
        return percent([s[name] for s in scores])

    def across(prompts: str) -> str:
        return ", ".join(f"{d} {percent([s['across'][d][prompts] for s in scores])}" for d in scores[0]["across"])

    nones = f"{column('none_erased')}, {column('none_kept')}"
    return [column("UA"), column("IRA"), across("kept"), across("erased"), nones]


def main() -> None:
    """Runs what is missing, then writes the table beside its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the models while they are judged")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--render", action="store_true", help="only write the table of the runs that are there")
    given = parser.parse_args()
    store = TrialStore(STORE, given.output)
    if not given.render:
        quieten()
        store.make(trial(target, rule, seed) for seed, rule, target in wanted(given))
    table = render(in_order(store.results().values()))
    write_text(STORE.with_suffix(".md"), table)
    print(table)


def wanted(given: argparse.Namespace) -> itertools.product[tuple[int, str, str]]:
    """Seed, rule and target of each run asked for."""
    return itertools.product(given.seeds, given.rules, given.targets)


if __name__ == "__main__":
    main()
