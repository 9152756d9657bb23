"""The report: one page that holds its pictures, figures and scripts, and asks nothing of a network."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from erase.evaluation.other_tables import other_tables
from erase.evaluation.plots import StepLines, training_plots
from erase.evaluation.table import (
    Results,
    Row,
    collateral_rows,
    concept_groups,
    percent,
    plural,
    score_rows,
    verdict,
)
from erase.provenance import write_text

TEMPLATES = Path(__file__).parent / "templates"
TARGET_PAIRS = 24
"""Pairs of the target that are shown."""
KEPT_PAIRS = 6
"""Pairs of each kept concept that are shown."""
MOST_GALLERIES = 40
"""Kept concepts whose pairs are shown; of 30,000 prompts the page stays one that a browser opens."""
SMALL = 64
"""Pictures up to this side are embedded pixel by pixel; larger ones are shrunk."""
SHRUNK = 192


@dataclass(frozen=True, eq=False)
class Pair:
    """One prompt and seed through both models, as the classifier saw it."""

    prompt: str
    seed: int
    asked: Mapping[str, str]
    """Domain to concept, as the prompt has it."""
    before: Path
    """The picture's file."""
    after: Path
    seen_before: Mapping[str, str]
    """Domain to label."""
    seen_after: Mapping[str, str]


@dataclass(frozen=True)
class Label:
    """One thing the classifier saw, and whether it is what was wanted."""

    text: str
    wanted: bool


@dataclass(frozen=True)
class Side:
    """A picture of a card."""

    source: str
    labels: tuple[Label, ...]

    @property
    def seen(self) -> str:
        """The labels in words."""
        return ", ".join(label.text for label in self.labels)


@dataclass(frozen=True)
class Card:
    """A pair as the page shows it."""

    prompt: str
    seed: int
    before: Side
    after: Side
    status: str
    good: bool


@dataclass(frozen=True)
class Gallery:
    """The cards of one concept."""

    concept: str
    cards: tuple[Card, ...]
    row: Row
    """Its accuracy over all its pairs, of which the cards may be a part."""
    neighbour: bool = False
    """Whether it is one of those that lie next to the target."""


def write_report(file: Path, results: Results, pairs: Sequence[Pair], log: StepLines) -> None:
    """Writes the page; ``log`` may be empty, and then the page says that there are no figures."""
    write_text(file, render(results, pairs, log))


def render(results: Results, pairs: Sequence[Pair], log: StepLines) -> str:
    """The page's text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"tight": _tight, "minus": lambda text: text.replace("-", "\N{MINUS SIGN}")}
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    galleries = make_galleries(results, pairs)
    return environment.get_template("report.html.jinja").render(
        results=results,
        verdict=verdict(results),
        target=next((g for g in galleries if g.concept == results["target"]), None),
        kept=[g for g in galleries if g.concept != results["target"]],
        left_out=count_left_out(results, galleries),
        groups=concept_groups(results),
        collateral=collateral_rows(results),
        scores=score_rows(results),
        others_measured=other_tables(results),
        plots=[(plot, Markup(plot.svg)) for plot in training_plots(log)],
        steps=len(log),
        facts=reproduction_facts(results),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        others=sorted({seen["domain"] for seen in results["base"]["concepts"].values()} - {results["domain"]}),
        percent=percent,
        plural=plural,
    )


def _tight(text: str) -> str:
    """Keeps a number and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def make_galleries(results: Results, pairs: Sequence[Pair]) -> list[Gallery]:
    """The target's pairs, then its neighbours', then those of the rest of its domain; failures first in each."""
    target, domain, effects = results["target"], results["domain"], results["effects"]["concepts"]
    members = {c: seen["domain"] for c, seen in results["base"]["concepts"].items()}
    fates = sorted(results.get("collateral", ()), key=lambda fate: not fate.get("listed"))  # asked for by hand: first
    near = [fate["concept"] for fate in fates if fate["concept"] != target]
    rest = [c for c, where in members.items() if where == domain and c not in (target, *near)]
    galleries = []
    for concept in [target, *near, *rest][: 1 + MOST_GALLERIES]:
        where = domain if concept == target else members[concept]
        of = [pair for pair in pairs if pair.asked.get(where) == concept]
        if concept == target:
            chosen = choose(of, TARGET_PAIRS, lambda pair: rank_erased(pair, domain))
        else:
            unspoiled = [pair for pair in of if pair.asked.get(domain) != target]
            chosen = choose(unspoiled, KEPT_PAIRS, partial(rank_kept, domain=where))
        if chosen:
            cards = tuple(make_card(pair, target, domain) for pair in chosen)
            galleries.append(Gallery(concept, cards, Row(concept, effects[concept]), concept in near))
    return galleries


def count_left_out(results: Results, galleries: Sequence[Gallery]) -> int:
    """Concepts of the target's domain whose pairs are not on the page."""
    members = {c for c, seen in results["base"]["concepts"].items() if seen["domain"] == results["domain"]}
    return len(members - {gallery.concept for gallery in galleries}) if galleries else 0


def misses(asked: Mapping[str, str], seen: Mapping[str, str]) -> list[str]:
    """The domains in which the classifier does not see what was asked for."""
    return [domain for domain, concept in asked.items() if seen.get(domain) != concept]


def rank_erased(pair: Pair, domain: str) -> tuple[int, ...]:
    """Lowest for the worst erasure: the target is still seen; then the more of the rest is lost."""
    missed = misses(pair.asked, pair.seen_after)
    return (int(domain in missed), -len(missed))


def rank_kept(pair: Pair, domain: str) -> tuple[int, ...]:
    """Lowest for the worst damage: the concept is lost; then the more of the rest is; then what was right before."""
    missed = misses(pair.asked, pair.seen_after)
    return (-int(domain in missed), -len(missed), len(misses(pair.asked, pair.seen_before)) if missed else 0)


def choose(pairs: Sequence[Pair], count: int, rank: Callable[[Pair], tuple[int, ...]]) -> list[Pair]:
    """The ``count`` of lowest rank; among equals, those whose attributes were chosen least so far."""
    left, chosen, uses = list(pairs), list[Pair](), Counter[tuple[str, str]]()
    while left and len(chosen) < count:
        best = min(range(len(left)), key=lambda i: (rank(left[i]), sum(uses[a] for a in left[i].asked.items())))
        chosen.append(left.pop(best))
        uses.update(chosen[-1].asked.items())
    return chosen


def make_card(pair: Pair, target: str, domain: str) -> Card:
    """A pair with its pictures embedded and its outcome in words."""
    erased = pair.asked.get(domain) == target
    missed = misses(pair.asked, pair.seen_after)
    if erased:
        good = domain in missed
        status = "gone" if good else f"still {target}"
    else:
        good = not missed
        status = "as asked" if good else f"wrong {' and '.join(missed)}"
        if missed and missed == misses(pair.asked, pair.seen_before):
            status += ", before too"
    wanted_after = {d: c for d, c in pair.asked.items() if not (erased and d == domain)}
    return Card(
        pair.prompt,
        pair.seed,
        Side(data_uri(pair.before), _labels(pair.seen_before, pair.asked, {})),
        Side(data_uri(pair.after), _labels(pair.seen_after, wanted_after, {domain: target} if erased else {})),
        status,
        good,
    )


def _labels(seen: Mapping[str, str], wanted: Mapping[str, str], unwanted: Mapping[str, str]) -> tuple[Label, ...]:
    return tuple(
        Label(label, wanted.get(domain, label) == label and unwanted.get(domain) != label)
        for domain, label in seen.items()
    )


def data_uri(file: Path) -> str:
    """A picture inside the page: a PNG of its pixels, or for a large one a smaller JPEG."""
    stream = io.BytesIO()
    with Image.open(file) as image:
        if max(image.size) <= SMALL:
            kind = "png"
            image.save(stream, "PNG", optimize=True)
        else:
            kind = "jpeg"
            smaller = image.convert("RGB")
            smaller.thumbnail((SHRUNK, SHRUNK))
            smaller.save(stream, "JPEG", quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def reproduction_facts(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """What the pictures were made of, in groups of name and value; seeds are left to the page."""
    prompts = {key: value for key, value in results["prompts"].items() if key != "seeds"}
    named = ("model", "revision", "hash", "lora")
    models = {s: {key: results[s][key] for key in named if results[s].get(key)} for s in ("base", "erased")}
    environment = {key: value for key, value in results.get("environment", {}).items() if key != "command"}
    groups = {
        "Models": models,
        "Prompts": prompts,
        "Sampling": results["sampling"],
        "Judges": results.get("metrics", {}),
        "Training": results.get("training", {}),
        "Environment": environment,
    }
    return [(title, flatten(values)) for title, values in groups.items() if values]


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of name and text."""
    lines = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            lines += flatten(value, f"{name}, ")
        elif value is None:
            lines.append((name, "not recorded"))
        elif isinstance(value, float):
            lines.append((name, f"{value:.6g}"))
        elif isinstance(value, list | tuple):
            lines.append((name, ", ".join(map(str, value))))
        else:
            lines.append((name, str(value)))
    return lines
