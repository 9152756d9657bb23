"""The README's table: five targets, several training seeds, LUR and the plain sum on the same evaluations.

    python pipelines/erasure_table.py --output runs/table          # about 2 hours on 2 CPU cores
    python pipelines/erasure_table.py --output runs/table --render # the table of the runs that are there

Each run is one erasure with the shipped configuration, only target, seed and rule changed, judged on every full
caption of Shapes World with seeds that training never draws, others for each training seed. A run with the same
settings that is in ``pipelines/results/erasure_table/`` is not made again: delete the folder to start from nothing.
Several of these may run at a time, each with rules, targets or seeds of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erase import embedded
from erase.command_line import quieten
from erase.config import dump, load
from erase.embedded import DEFAULT_CONFIG
from erase.evaluation.comparison import Exam, Scored, compare, embedded_exam
from erase.generation.sampling import SamplingSettings
from erase.provenance import describe_environment, hash_folder, hash_json, write_json, write_text
from erase.training.erasure import ErasureRun, erase_concepts

TARGETS = ("star", "circle", "ring", "dotted", "red")
EVALUATION_SEED = 1000
"""Of training seed 0; the next seeds follow."""
RULES: dict[str, list[str]] = {
    "lur": [],
    "weighted_sum": ["update.name=weighted_sum", "max_train_steps={sum_steps}"],
}
COLUMNS = ("UA", "IRA", "CRA on kept prompts", "CRA on erased prompts", "called none: erased, kept")
STORE = Path(__file__).parent / "results" / "erasure_table"


def settings(target: str, rule: str, seed: int, folder: Path) -> ErasureRun:
    """The shipped configuration; the sum takes half as many steps again: 2 gradient evaluations a step, not 3."""
    steps = load(ErasureRun, DEFAULT_CONFIG).max_train_steps
    extra = [override.format(sum_steps=steps * 3 // 2) for override in RULES[rule]]
    changed = [f"targets.0.concept={target}", f"seed={seed}", f"output_dir={folder / 'model'}", "overwrite=true"]
    return load(ErasureRun, DEFAULT_CONFIG, [*changed, *extra])


def identity(run: ErasureRun) -> str:
    """What a result belongs to: every setting but where things are written, and the base's weights."""
    tree = dump(run)
    for place in ("output_dir", "overwrite", "logging_dir"):
        tree.pop(place)
    tree["latents"].pop("cache_dir")
    return hash_json([tree, hash_folder(embedded.WEIGHTS / "pipeline")])


def run_one(exam: Exam, base: Scored, target: str, rule: str, seed: int, folder: Path) -> dict[str, Any]:
    """Erases and judges."""
    print(f"{target}, {rule}, seed {seed}", flush=True)
    run = settings(target, rule, seed, folder)
    counts = erase_concepts(run)
    results = compare(exam, base, exam.sit(run.output_dir, f"{target} erased"), target)
    results["prompts"].pop("seeds")  # they follow from the evaluation seed
    made = {"rule": rule, "seed": seed, "settings": identity(run), "counts": vars(counts)}
    return made | results | {"environment": describe_environment()}


def stored() -> dict[str, dict[str, Any]]:
    """The results that are there, by ``target-rule-seed``."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(STORE.glob("*.json"))}


def render(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: mean and standard deviation over seeds, in per cent, with the base's figure for each."""
    lines = [
        f"| target | rule | seeds | {' | '.join(COLUMNS)} |",
        f"|---|---|---|{'---|' * len(COLUMNS)}",
    ]
    for target in dict.fromkeys(r["target"] for r in results):
        of = [r for r in results if r["target"] == target]
        before = list({r["seed"]: r["base"]["scores"] for r in of}.values())
        rows = {"base": before} | {
            rule: [r["erased"]["scores"] for r in of if r["rule"] == rule]
            for rule in dict.fromkeys(r["rule"] for r in of)
        }
        for rule, scores in rows.items():
            lines.append(f"| {target} | {rule} | {len(scores)} | {' | '.join(cells(scores))} |")
    return "\n".join(lines) + "\n"


def percent(values: Sequence[float]) -> str:
    """``98.3 ± 0.4``"""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def cells(scores: Sequence[dict[str, Any]]) -> list[str]:
    """A row of the table, in the order of ``COLUMNS``."""

    def column(name: str) -> str:
        return percent([s[name] for s in scores])

    def across(prompts: str) -> str:
        return ", ".join(f"{d} {percent([s['across'][d][prompts] for s in scores])}" for d in scores[0]["across"])

    nones = f"{column('none_erased')}, {column('none_kept')}"
    return [column("UA"), column("IRA"), across("kept"), across("erased"), nones]


def work(given: argparse.Namespace) -> None:
    """Makes every run that is missing, and stores each as soon as it is done."""
    for seed in given.seeds:
        exam: Exam | None = None
        for rule, target in itertools.product(given.rules, given.targets):
            name = f"{target}-{rule}-{seed}"
            folder = given.output / name
            if stored().get(name, {}).get("settings") == identity(settings(target, rule, seed, folder)):
                continue
            if exam is None:
                exam = embedded_exam(1, EVALUATION_SEED + seed, SamplingSettings())
                base = exam.sit(embedded.WEIGHTS / "pipeline", embedded.NAME)
            result = run_one(exam, base, target, rule, seed, folder)
            STORE.mkdir(parents=True, exist_ok=True)
            write_json(STORE / f"{name}.json", result)


def main() -> None:
    """Runs what is missing, then writes the table beside its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the erased models")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--render", action="store_true", help="only write the table of the runs that are there")
    given = parser.parse_args()
    if not given.render:
        quieten()
        work(given)
    order = [*dict.fromkeys([*TARGETS, *given.targets])]
    table = render(sorted(stored().values(), key=lambda r: (order.index(r["target"]), r["rule"], r["seed"])))
    write_text(STORE.with_suffix(".md"), table)
    print(table)


if __name__ == "__main__":
    main()
