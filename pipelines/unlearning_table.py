"""The README's table of unlearning: every method, several settings and seeds, each tuned by the same search.

    python -m pipelines.unlearning_table --settings digits_class  # an hour and a quarter on 2 CPU cores
    python -m pipelines.unlearning_table --render                 # the table of the runs that are there

Each run is stored at once in ``pipelines/results/unlearning_table/``; one that is stored and of the same settings is
not made again. Several of these may run at a time and share the work; one for each core, with OMP_NUM_THREADS=1, is
fastest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from erase.command_line import quieten
from erase.evaluation.unlearning.study import REFERENCES, RETRAIN, Row, by_method, shown, summary, table
from erase.evaluation.unlearning.study_plot import write_plot
from erase.provenance import write_text
from pipelines.unlearning_methods import METHODS, SETTINGS
from pipelines.unlearning_study import Study

STORE = Path(__file__).parent / "results" / "unlearning_table"


def all_rows(study: Study) -> list[Row]:
    """What is stored, of the seeds that tuning did not see; of a setting that every method has the same seeds of."""
    rows = [
        row
        for setting in SETTINGS
        if is_complete(found := study.rows(setting), study.methods(setting))
        for row in found
    ]
    order = [*REFERENCES, *METHODS]
    return sorted(rows, key=lambda row: order.index(row.method))


def is_complete(rows: Sequence[Row], methods: Sequence[str]) -> bool:
    """Whether each of the methods and every reference has the seeds that retraining has."""
    seeds = {name: {row.seed for row in rows if row.method == name} for name in (*REFERENCES, *methods)}
    return bool(rows) and all(found == seeds[RETRAIN] for found in seeds.values())


def headline(study: Study, rows: Sequence[Row]) -> str:
    """LUR's variant and the other method, each the nearest on the tuning seeds, on the seeds that chose nothing."""
    lines = ["| setting | LUR's variant, as tuned | its gap | the other, as tuned | its gap |", "|---|---|---|---|---|"]
    for setting, of in SETTINGS.items():
        groups = by_method(rows, of.title)
        cells = [of.title]
        for is_lur in (True, False) if groups else ():
            names = [name for name in study.methods(setting) if name.startswith("lur") == is_lur]
            name = min(names, key=partial(study.tuning_gap, setting))
            cells += [name, shown(groups[name], "Avg_gap")]
        lines += [f"| {' | '.join(cells)} |"] if groups else []
    return "\n".join(lines)


def render(study: Study, rows: Sequence[Row]) -> str:
    """Average gaps over all settings, which were to be expected, then every metric of each."""
    parts = ["### Average gap to retraining, points", summary(rows), "### As tuning chose", headline(study, rows)]
    return "\n\n".join([*parts, table(rows)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes the table and the plot beside the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=Path("runs/unlearning_table"), help="models while judged")
    parser.add_argument("--store", type=Path, default=STORE, help="folder of the results")
    parser.add_argument("--render", action="store_true", help="only write the table of the runs that are there")
    given = parser.parse_args(arguments)
    quieten()
    study = Study(given.store, given.output)
    for setting in [] if given.render else given.settings:
        study.tune(setting)
        for seed in given.seeds:
            study.references(setting, seed)
            study.make_rows(setting, seed)
    rows = all_rows(study)
    write_text(given.store.with_suffix(".md"), render(study, rows))
    write_plot(given.store.with_suffix(".svg"), rows)
    print(render(study, rows))


if __name__ == "__main__":
    main()
