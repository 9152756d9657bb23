"""The methods of the unlearning study: each a shipped configuration, and the search that it is tuned by."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erase.config import build, merge, read_yaml
from erase.training.unlearning_settings import UnlearningRun
from pipelines.search import Axis, coordinate_search

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "classification"
OF_THE_SETTING = ("task", "data", "forget", "original", "model")
"""Keys of a configuration that say what is unlearned; the others say how."""


@dataclass(frozen=True)
class Setting:
    """What is forgotten of which data."""

    title: str
    config: str
    longer: float = 1.0
    """How many times the steps of the methods' configurations it has, within a tenth of its retraining."""


SETTINGS = {
    "digits_random10": Setting("digits, 10 % random", "digits_random10"),
    "digits_class": Setting("digits, class 8", "digits_class"),
    "digits_flipped10": Setting("digits, 10 % flipped labels", "digits_flipped10"),
    "shapes_circle": Setting("drawings, circles", "shapes_circle"),
    "shapes_flipped10": Setting("drawings, 10 % flipped labels", "shapes_flipped10", 3.3),
}


Overrides = tuple[str, ...]
RATES = (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""What a method's learning rate is searched in, half a decade apart."""
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""The same for what stands in a learning rate's place."""


MODES = ("frozen", "batch")
"""How batch norm behaves: neither is better for all. Under statistics that stand still, wrong labels spoil what is
kept; those of a batch of one class tell the network what to forget, which the running ones do not."""


@dataclass(frozen=True)
class Method:
    """A configuration, what is changed in it, and what is searched."""

    config: str
    number: str
    """The key that is tuned beside the rate."""
    values: tuple[Any, Any, Any]
    """Of the number: the usual one, and two others."""
    changed: Overrides = ()
    rate: str = "learning_rate"
    rates: tuple[float, ...] = RATES
    modes: tuple[str, ...] = MODES
    settings: tuple[str, ...] = tuple(SETTINGS)
    """Where it is made."""

    def search(self, gap: Callable[[Overrides], float]) -> Overrides:
        """The best of twelve tries: every second rate in each mode, the two beside the best, and other numbers."""
        usual, *others = self.values
        coarse = list(itertools.product(self.rates[1::2], self.modes))
        axes: list[Axis] = [("at", lambda _: coarse), ("at", self.beside), ("value", lambda _: others)]
        start = {"at": coarse[0], "value": usual}
        return self.overrides(**coordinate_search(start, axes, lambda tried: gap(self.overrides(**tried))))

    def beside(self, at: tuple[float, str]) -> list[tuple[float, str]]:
        """The rates before and after one that is neither the first nor the last, in its mode."""
        place = self.rates.index(at[0])
        return [(self.rates[place - 1], at[1]), (self.rates[place + 1], at[1])]

    def overrides(self, at: tuple[float, str], value: Any) -> Overrides:
        """One try."""
        return (f"{self.rate}={at[0]:g}", f"batch_norm={at[1]}", f"{self.number}={value:g}")


STEPS, WEIGHT, RETAIN_STEPS = "max_train_steps", "forget_weight", "update.retain_steps"
WEIGHTS = (0.3, 0.1, 1.0)
NASH = ", combine: nash"
RANDOM, NEAREST = "forget_loss={name: random_label}", "forget_loss={name: boundary_shrink}"
AHEAD = (1e-3, 3e-4, 3e-3)
"""How far LUR looks ahead, as a share of the weights' norm. A set share needs no evaluation; the controller that seeks
one by the correction spends three, and in `alternating` mode eight, a quarter of these runs."""


def weighted(config: str, *changed: str) -> Method:
    """A method whose number is its forget weight."""
    return Method(config, WEIGHT, WEIGHTS, changed)


def lengths(mode: str) -> tuple[float, float, float]:
    """How far a mode looks ahead; `alternating` shifts by twice as much as it is told."""
    usual, shorter, longer = AHEAD
    return (usual / 2, shorter / 2, longer / 2) if mode == "alternating" else AHEAD


def ahead(mode: str, more: str = "") -> str:
    """LUR in a mode, at the usual of its lengths."""
    alpha = f"{{name: displacement, ratio: {lengths(mode)[0]:g}}}"
    return f"{{name: lur, mode: {mode}, alpha: {alpha}, measure_every: 0{more}}}"


def lur(mode: str, *changed: str, config: str = "digits_random10") -> Method:
    """LUR in a mode. Its number is how far it looks ahead; the forget weight is the configuration's."""
    return Method(config, "update.alpha.ratio", lengths(mode), (f"update={ahead(mode)}", *changed))


def one_step(name: str, rate: str, number: str, values: tuple[float, float, float]) -> Method:
    """A method that is its start: no batch is drawn, so batch norm has one mode."""
    return Method(f"digits_{name}", number, values, rate=rate, rates=FACTORS, modes=MODES[:1])


def with_labels(name: str, loss: str, chained: int, others: int) -> dict[str, Method]:
    """The rows of a forget loss that teaches other labels, and their steps; a `chained` one has an evaluation more."""
    bargain = Method("digits_munba", "max_grad_norm", (1.0, 0.3, 3.0), (loss, f"{STEPS}={others}"))
    return {
        f"lur chained, {name}": lur("chained", loss, f"{STEPS}={chained}"),
        f"lur alternating, {name}": lur("alternating", loss, f"{STEPS}={others}"),
        f"lur nash, {name}": replace(bargain, changed=(f"update={ahead('alternating', NASH)}", *bargain.changed)),
        f"weighted_sum, {name}": weighted(
            "digits_random10", "update={name: weighted_sum}", loss, f"{STEPS}={others}"
        ),  # what is LUR's, and what the loss's
        f"munba, {name}": bargain,
    }


TO_BE_WON = ("digits_flipped10", "shapes_circle", "shapes_flipped10")
"""The settings in which rules without retain steps stay farther from retraining than the spread of a second one, as
tuning showed of the first two; the third is the first with other pictures."""


def repaired(config: str, rule: str, steps: int, retain: tuple[int, int, int]) -> Method:
    """A rule with random labels, and after each of its steps some that only retain, whose number is searched."""
    changed = (f"update={{name: alternating_steps, rule: {rule}}}", RANDOM, f"{STEPS}={steps}")
    return Method(config, RETAIN_STEPS, retain, changed, settings=TO_BE_WON)


METHODS: dict[str, Method] = {
    "finetune": Method("digits_finetune", STEPS, (30, 15, 8)),
    "gradient_ascent": Method("digits_gradient_ascent", STEPS, (15, 5, 30)),
    "neggrad_plus": weighted("digits_neggrad_plus"),
    "random_label": Method("digits_random_label", RETAIN_STEPS, (9, 4, 2)),
    "l1_sparse": Method("digits_l1_sparse", "retain_loss.gamma", (1e-4, 1e-5, 1e-3)),
    "boundary_shrink": Method("digits_boundary_shrink", STEPS, (10, 5, 15)),
    "boundary_expand": Method("digits_boundary_expand", STEPS, (10, 5, 30)),
    "bad_teacher": weighted("digits_bad_teacher"),
    "scrub": Method("digits_scrub", "update.forget_until", (20, 10, 30)),
    "influence_unlearning": one_step("influence_unlearning", "start.scale", "start.damping", (1.0, 3.0, 10.0)),
    "selective_dampening": one_step("selective_dampening", "start.alpha", "start.lam", (1.0, 0.1, 0.3)),
    "salun": Method("digits_salun", RETAIN_STEPS, (9, 4, 2)),
    "scissorhands": weighted("digits_scissorhands"),
    "sfron": Method("digits_sfron", WEIGHT, (1.0, 0.3, 3.0)),
    "munba": Method("digits_munba", "max_grad_norm", (1.0, 0.3, 3.0)),
    "lur chained": lur("chained"),
    "lur alternating": lur("alternating", f"{STEPS}=15"),
    "lur first_order": lur("first_order", f"{STEPS}=15"),
    "lur exact": lur("exact"),
    "lur chained, trim": lur("chained", config="digits_lur_trim"),
    "lur alternating, trim": lur("alternating", f"{STEPS}=15", config="digits_lur_trim"),
    **with_labels("random labels", RANDOM, chained=10, others=15),
    **with_labels("nearest labels", NEAREST, chained=7, others=10),
    "lur chained, repaired": repaired("digits_random10", ahead("chained"), 18, (3, 2, 4)),
    "lur nash, repaired": repaired("digits_munba", ahead("chained", NASH), 18, (3, 2, 4)),
    "weighted_sum, repaired": repaired("digits_random10", "weighted_sum", 24, (5, 3, 11)),
    "munba, repaired": repaired("digits_munba", "nash", 24, (5, 3, 11)),
}
del METHODS["munba, random labels"]  # which is MUNBa
"""At most 30 gradient evaluations of a batch each, those of nearest labels included: a tenth of retraining's 300, and
a twentieth where it takes 600. Drawings with wrong labels have 99, a thirtieth of retraining's 3,000."""


def make_run(setting: Setting, method: Method, overrides: Sequence[str], seed: int, folder: Path) -> UnlearningRun:
    """The run of a method in a setting; seed and splits follow ``seed``."""
    what = {k: v for k, v in read_yaml(CONFIGS / f"{setting.config}.yaml").items() if k in OF_THE_SETTING}
    how = {k: v for k, v in read_yaml(CONFIGS / f"{method.config}.yaml").items() if k not in OF_THE_SETTING}
    own = [f"seed={seed}", f"split_seed={seed}", f"output_dir={folder}", "overwrite=true"]
    tree = merge({**how, **what}, [*method.changed, *overrides, *own])
    for place, key in ((tree, STEPS), (tree.get("update", {}), "forget_until")):
        if place.get(key):
            place[key] = round(setting.longer * place[key])
    return build(UnlearningRun, tree)
