"""The README's table: five targets, several training seeds, LUR and the plain sum on the same evaluations.

    python pipelines/erasure_table.py --output runs/table          # HOURS on 2 CPU cores
    python pipelines/erasure_table.py --output runs/table --render # the table of the runs that are there

Each run is one erasure with the shipped configuration, only target, seed and rule changed, judged on every full
caption of Shapes World with seeds that training never draws, others for each training seed. A run that is there is
not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from erase import embedded
from erase.command_line import quieten
from erase.config import load
from erase.demo import DEFAULT_CONFIG
from erase.evaluation.comparison import Exam, Scored, compare, embedded_exam
from erase.generation.sampling import SamplingSettings
from erase.provenance import describe_environment, write_json, write_text
from erase.training.erasure import ErasureRun, erase_concepts

TARGETS = ("star", "circle", "ring", "dotted", "red")
EVALUATION_SEED = 1000
"""Of training seed 0; the next seeds follow."""
RULES: dict[str, list[str]] = {
    "lur": [],
    "weighted_sum": ["update.name=weighted_sum", "max_train_steps={sum_steps}"],
}
COLUMNS = {"UA": "UA", "IRA": "IRA", "CRA_kept": "CRA, kept", "CRA_erased": "CRA, erased"}
RESULTS = Path(__file__).parent / "results"


def settings(target: str, rule: str, seed: int, folder: Path) -> ErasureRun:
    """The shipped configuration; the sum takes half as many steps again: 2 gradient evaluations a step, not 3."""
    steps = load(ErasureRun, DEFAULT_CONFIG).max_train_steps
    extra = [override.format(sum_steps=steps * 3 // 2) for override in RULES[rule]]
    changed = [f"targets.0.concept={target}", f"seed={seed}", f"output_dir={folder / 'model'}", "overwrite=true"]
    return load(ErasureRun, DEFAULT_CONFIG, [*changed, *extra])


def run_one(exam: Exam, base: Scored, target: str, rule: str, seed: int, folder: Path) -> None:
    """Erases and judges, unless it was done."""
    if (folder / "results.json").exists():
        return
    print(f"{target}, {rule}, seed {seed}", flush=True)
    run = settings(target, rule, seed, folder)
    counts = erase_concepts(run)
    results = compare(exam, base, exam.sit(run.output_dir, f"{target} erased"), target)
    made = {"rule": rule, "seed": seed, "counts": vars(counts), "environment": describe_environment()}
    write_json(folder / "results.json", made | results)


def collect(
    output: Path, targets: Sequence[str], rules: Sequence[str], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The results that are there."""
    for target in targets:
        for rule in rules:
            for seed in seeds:
                file = output / f"{target}-{rule}-{seed}" / "results.json"
                if file.exists():
                    yield json.loads(file.read_text(encoding="utf-8"))


def render(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: mean and standard deviation over seeds, in per cent, with the base's figure for each."""
    lines = [
        f"| target | rule | seeds | {' | '.join(COLUMNS.values())} | called none: erased, kept |",
        f"|---|---|---|{'---|' * (len(COLUMNS) + 1)}",
    ]
    for target in dict.fromkeys(r["target"] for r in results):
        of = [r for r in results if r["target"] == target]
        before = list({r["seed"]: r["base"]["scores"] for r in of}.values())
        rows = {"base": before} | {
            rule: [r["erased"]["scores"] for r in of if r["rule"] == rule]
            for rule in dict.fromkeys(r["rule"] for r in of)
        }
        for rule, scores in rows.items():
            cells = " | ".join(percent([s[c] for s in scores]) for c in COLUMNS)
            lines.append(f"| {target} | {rule} | {len(scores)} | {cells} | {nones(scores)} |")
    return "\n".join(lines) + "\n"


def percent(values: Sequence[float]) -> str:
    """``98.3 ± 0.4``"""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def nones(scores: Sequence[dict[str, float]]) -> str:
    """The shares of erased and of kept pictures that the classifier calls none."""
    return f"{percent([s['none_erased'] for s in scores])}, {percent([s['none_kept'] for s in scores])}"


def main() -> None:
    """Runs what is missing, then writes the table and its figures to ``pipelines/results``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--render", action="store_true", help="only write the table of the runs that are there")
    given = parser.parse_args()
    if not given.render:
        quieten()
        for seed in given.seeds:
            exam = embedded_exam(1, EVALUATION_SEED + seed, SamplingSettings())
            base = exam.sit(embedded.WEIGHTS / "pipeline", embedded.NAME)
            for rule in given.rules:
                for target in given.targets:
                    run_one(exam, base, target, rule, seed, given.output / f"{target}-{rule}-{seed}")
    found = list(collect(given.output, given.targets, given.rules, given.seeds))
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "erasure_table.json", [{k: v for k, v in r.items() if k != "prompts"} for r in found])
    write_text(RESULTS / "erasure_table.md", render(found))
    print(render(found))


if __name__ == "__main__":
    main()
