"""Every update rule under the same losses and the same budget of gradient evaluations, each tuned alike.

    python -m pipelines.compare_updates --output runs/compare --stage tune     # learning rate, weight and alpha of each
    python -m pipelines.compare_updates --output runs/compare --stage compare  # 3 targets x 3 seeds, as tuned
    python -m pipelines.compare_updates --output runs/compare --stage weights  # forget weights over two orders
    python -m pipelines.compare_updates --output runs/compare --stage render   # the tables and plots of what is there

--losses, --parameters and --rules choose a part; results accumulate in ``pipelines/results/compare_updates/``. A run is
about 80 seconds of a CPU core: batches and steps are fewer than the shipped configuration's, so that hundreds of runs
are within reach. Several may run at a time and share the work; one for each core is fastest, each with
OMP_NUM_THREADS=1. Tuning uses seeds of its own, training and evaluation alike. It judges by the harmonic mean of UA,
IRA and CRA on kept prompts: every rule has the same search of eight on one target, the best three of it run on the
other two as well, and the largest mean is chosen. Cosines are of both gradients at the weights before a step, by probes
that are no part of the budget. Two rules are not run. UPGrad is PCGrad for two objectives
(tests/unit/updates/test_gram_rules.py); MGDA's shortest vector is the retain gradient, which is 0 where a teacher is
the retain loss, and the trainer refuses it (tests/unit/updates/test_held.py).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from erase.command_line import quieten
from erase.errors import UserError
from erase.evaluation.trials import Trial, TrialStore
from erase.provenance import held
from pipelines import compare_updates_figures as figures
from pipelines.search import Axis, Settings, choose, coordinate_search

Cell = tuple[str, str, str]
"""A forget loss, a selection of parameters, and a rule."""

BUDGET, BATCH_SIZE = 180, 8
"""Gradient evaluations of a run, and how many examples each is of."""
SAMPLING_STEPS = 8
"""Of each picture that judges a run."""
TARGETS = ("star", "circle", "red")
"""circle is hard, as its neighbours ring and moon are kept; red is where gradients conflict most under
negative guidance."""
SEEDS = (0, 1, 2)
EVALUATION_SEED, TUNING_SEED, TUNING_EVALUATION_SEED = 3000, 300, 4000
TUNING = (("circle", 0), ("red", 1), ("star", 2))
"""Targets and seeds of tuning: a search on the first, the best of which run on the others, too."""
STORE = Path(__file__).parent / "results" / "compare_updates"
AHEAD = "measure_every: 0, alpha: {name: displacement}"
"""How LUR looks ahead: a set share of the weights' norm, which needs no evaluation."""
RULES: dict[str, tuple[int, str]] = {
    "weighted_sum": (90, "{name: weighted_sum}"),
    "lur": (60, f"{{name: lur, mode: chained, {AHEAD}}}"),
    "lur_alternating": (90, f"{{name: lur, mode: alternating, {AHEAD}}}"),
    "lur_pcgrad": (90, f"{{name: lur, mode: alternating, combine: pcgrad, {AHEAD}}}"),
    "pcgrad": (90, "{name: pcgrad}"),
    "cagrad": (90, "{name: cagrad}"),
    "gradient_projection": (90, "{name: gradient_projection}"),
    "alternating_steps": (180, "{name: alternating_steps}"),
    "nash": (90, "{name: nash}"),
}
"""The steps that the budget allows, and the rule."""
LOSSES: dict[str, tuple[str, tuple[float, ...]]] = {
    "negative_guidance": ("{name: negative_guidance, eta: 7.0, eta_absent: 1.2}", (0.25, 1.0)),
    "anchor_redirection": ("{name: anchor_redirection}", (0.5, 2.0)),
    "gradient_ascent": ("{name: gradient_ascent}", (0.02, 0.6)),
}
"""The forget loss, and a light and a heavy forget weight."""
ANCHORS = {"star": "circle", "circle": "square", "red": "green"}
PARAMETERS: dict[str, tuple[str, tuple[float, float, float]]] = {
    "full": ("{name: full}", (1.5e-4, 3e-4, 6e-4)),
    "cross_attention": ("{name: cross_attention}", (5e-4, 1e-3, 2e-3)),
    "lora": ("{name: lora, rank: 8, alpha: 8}", (5e-4, 1e-3, 2e-3)),
}
"""The selection, and the learning rates that are tried."""
OWN: dict[str, tuple[str, float, float]] = {
    "cagrad": ("update.c", 0.5, 0.2),
    "alternating_steps": ("update.retain_steps", 1, 3),
}
"""A number of the rule's own, its usual value and the other that is tried."""
LOOKS: dict[tuple[str, str], float] = {
    ("negative_guidance", "full"): 1e-5,
    ("negative_guidance", "cross_attention"): 3e-2,
    ("negative_guidance", "lora"): 1e-1,
    ("anchor_redirection", "full"): 1e-5,
    ("anchor_redirection", "cross_attention"): 3e-2,
    ("anchor_redirection", "lora"): 1e-1,
    ("gradient_ascent", "full"): 1e-4,
    ("gradient_ascent", "cross_attention"): 3e-3,
    ("gradient_ascent", "lora"): 1e-2,
}
"""LUR's own number, the share of the weights' norm that it looks ahead: where, by a short run on the tuning seed of
red, its correction is about a tenth or two of the sum. Three times that is tried, too."""
NASH_RATES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Times the middle learning rate: the bargain has no forget weight that could be tuned."""
RATE, WEIGHT = "learning_rate", "forget_weight"


def overrides(rule: str, loss: str, parameters: str, target: str, setting: Settings) -> tuple[str, ...]:
    """One cell of the comparison; the steps are what the budget allows."""
    steps, update = RULES[rule]
    changes = [
        f"update={update}",
        f"forget_loss={LOSSES[loss][0]}",
        f"parameters={PARAMETERS[parameters][0]}",
        f"max_train_steps={steps}",
        f"train_batch_size={BATCH_SIZE}",
        *(f"{key}={value}" for key, value in setting.items()),
        "checkpointing_steps=100000",
        f"probe_every={steps // 4}",
        "save_merged=" + str(parameters == "lora").lower(),
    ]
    if loss == "anchor_redirection":
        changes.append(f"targets.0.anchor={ANCHORS[target]}")
    return tuple(changes)


def search(cell: Cell, loss: Callable[[Settings], float]) -> Settings:
    """Eight tries: three weights at the middle rate; the other rates; half-way to the weights beside; and one more.

    That is the other value of a number of the rule's own or, for a rule without one, 0.7 of the rate. Weights come
    first, as a rule that forgets nothing at one weight tells nothing about its rates.
    """
    name, parameters, rule = cell
    (low, usual_rate, high), (light, heavy) = PARAMETERS[parameters][1], LOSSES[name][1]
    if rule == "nash":
        return coordinate_search({}, [(RATE, lambda _: [rounded(usual_rate * f) for f in NASH_RATES])], loss)
    key, usual, other = own_number(cell)
    middle, half = rounded((light * heavy) ** 0.5), (heavy / light) ** 0.25
    axes: list[Axis] = [
        (WEIGHT, lambda _: (light, middle, heavy)),
        (RATE, lambda _: (low, high)),
        (WEIGHT, lambda best: (rounded(best / half), rounded(best * half))),
        (key, lambda _: (other,)) if key else (RATE, lambda best: (rounded(0.7 * best),)),
    ]
    start = {RATE: usual_rate, WEIGHT: middle}
    return coordinate_search(start | ({key: usual} if key else {}), axes, loss)


def own_number(cell: Cell) -> tuple[str, float, float]:
    """The key of a number of the rule's own, its usual value and the other; without a key where it has none."""
    loss, parameters, rule = cell
    if rule.startswith("lur"):
        return "update.alpha.ratio", LOOKS[loss, parameters], rounded(3 * LOOKS[loss, parameters])
    return OWN.get(rule, ("", 0.0, 0.0))


def rounded(value: float) -> float:
    """Three digits, as in the names of trials."""
    return float(f"{value:.3g}")


def labelled(stage: str, cell: Cell, target: str, seed: int, setting: Settings) -> Trial:
    """A trial, named by all that tells it from the others."""
    loss, parameters, rule = cell
    tuning = stage != "compare"
    first, evaluation = (TUNING_SEED, TUNING_EVALUATION_SEED) if tuning else (0, EVALUATION_SEED)
    numbers = "-".join(f"{value:g}" for value in setting.values())
    name = f"{loss}-{parameters}-{rule}-{target}-{seed}-{numbers}"
    labels = {"loss": loss, "parameters": parameters, "rule": rule, "setting": setting}
    changes = overrides(rule, loss, parameters, target, setting)
    return Trial(name, target, first + seed, evaluation + seed, changes, tuple(labels.items()), SAMPLING_STEPS)


def tune(store: TrialStore, cells: Sequence[Cell]) -> None:
    """Searches for every cell, each by one process; what others are at is waited for at the end."""
    with store.swept():
        for wait, cell in itertools.product((False, True), cells):
            with held(store.scratch / f"{'-'.join(cell)}.lock", wait) as mine:
                if mine:
                    chosen(cell, lambda trial: -figures.merit(store.result(trial)))


def chosen(cell: Cell, loss: Callable[[Trial], float]) -> Settings:
    """The setting of the least mean loss over targets."""
    return choose(
        partial(search, cell),
        lambda setting: loss(attempt(cell, setting)),
        lambda setting: [loss(attempt(cell, setting, *at)) for at in TUNING[1:]],
    )


def tuned(store: TrialStore, cell: Cell) -> Settings:
    """What a cell's tuning chose, all of whose tries are stored."""
    found = store.results()

    def loss(trial: Trial) -> float:
        if not store.has(trial):
            raise UserError(
                f"compare_updates: {', '.join(cell)} is not tuned yet; run --stage tune with the same choices"
            )
        return -figures.merit(found[trial.name])

    return chosen(cell, loss)


def attempt(cell: Cell, setting: Settings, target: str = TUNING[0][0], seed: int = TUNING[0][1]) -> Trial:
    """A try of the tuning."""
    return labelled("tune", cell, target, seed, setting)


def trials(stage: str, cells: Iterable[Cell]) -> Iterator[Trial]:
    """What a stage after the tuning is made of. Weights are swept where they are not void."""
    tuning = TrialStore(STORE / "tune", STORE)
    for cell in cells:
        loss, _, rule = cell
        if stage == "compare":
            setting = tuned(tuning, cell)
            yield from (labelled(stage, cell, t, s, setting) for s, t in itertools.product(SEEDS, TARGETS))
        elif rule != "nash":
            setting, middle = tuned(tuning, cell), statistics.geometric_mean(LOSSES[loss][1])
            for factor in (0.1, 0.3, 1.0, 3.0, 10.0):
                changed = setting | {WEIGHT: rounded(middle * factor)}
                yield from (labelled(stage, cell, TUNING[0][0], seed, changed) for seed in (1, 2))


def finished(stage: str) -> list[dict[str, Any]]:
    """The results of the pairs of loss and selection of which every rule's are stored."""
    store, results = TrialStore(STORE / stage, STORE), []
    for loss, parameters in itertools.product(LOSSES, PARAMETERS):
        try:
            wanted = list(trials(stage, [(loss, parameters, rule) for rule in RULES]))
        except UserError:  # not tuned
            continue
        if all(map(store.has, wanted)):
            found = store.results()
            results += [found[trial.name] for trial in wanted]
    return results


def main() -> None:
    """Makes what is missing of a stage, or renders what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the models while they are judged")
    parser.add_argument("--stage", choices=("tune", "compare", "weights", "render"), required=True)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--parameters", nargs="+", choices=PARAMETERS, default=list(PARAMETERS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    given = parser.parse_args()
    if given.stage == "render":
        figures.write(finished("compare"), finished("weights"), STORE.parent)
        return
    quieten()
    cells = list(itertools.product(given.losses, given.parameters, given.rules))
    store = TrialStore(STORE / given.stage, given.output / given.stage)
    if given.stage == "tune":
        tune(store, cells)
    else:
        store.make(trials(given.stage, cells))


if __name__ == "__main__":
    main()
