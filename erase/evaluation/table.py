"""The figures in words and rows, the same on the page and in the terminal; and the terminal's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erase.evaluation.intervals import CHANGED, NOT_SHOWN, TOO_FEW

Results = Mapping[str, Any]
"""What ``results.json`` holds."""


NEVER = 0.1
"""A base that misses the target this often is part of the verdict: what it does not draw cannot be erased."""
SHORT = {CHANGED: "yes", NOT_SHOWN: "not shown", TOO_FEW: "too few"}
"""The verdicts where there is little room."""


@dataclass(frozen=True)
class Row:
    """One measure before and after, on the same prompts and seeds, as ``effects.effects`` has it."""

    name: str
    effect: Mapping[str, Any]
    meaning: str = ""
    wanted: str = ""
    """What a good erasure does to it: "high after", "unchanged"; empty if neither is good in itself."""

    @property
    def images(self) -> int:
        """How many pictures of each model it is taken of."""
        return int(self.effect["images"])

    @property
    def verdict(self) -> str:
        """``changed``, ``not shown to change`` or ``too few images``."""
        return str(self.effect["verdict"])

    def show(self, side: str) -> str:
        """The value ``before`` or ``after``."""
        return self._text(self.effect[side]["estimate"])

    def interval(self, side: str) -> str:
        """The 95 % interval of a side's value, ``83.3 to 99.4``."""
        low, high = self.effect[side]["low"], self.effect[side]["high"]
        if low is None or high is None:
            return "no interval"
        return f"{self._text(low).removesuffix(' %')} to {self._text(high).removesuffix(' %')}"

    @property
    def difference(self) -> str:
        """After less before: points for a share, the plain difference otherwise."""
        return self._signed(self.effect["difference"]["estimate"])

    @property
    def difference_interval(self) -> str:
        """The 95 % interval of the difference, taken pair by pair."""
        low, high = self.effect["difference"]["low"], self.effect["difference"]["high"]
        if low is None or high is None:
            return "no interval"
        return f"{self._signed(low)} to {self._signed(high)}"

    def _signed(self, difference: float) -> str:
        return signed(100 * difference) if self.effect["is_share"] else signed(difference, self._digits)

    def _text(self, value: float) -> str:
        return percent(value, 1) if self.effect["is_share"] else f"{value:.{self._digits}f}"

    @property
    def _digits(self) -> int:
        return decimals(self.effect["before"]["estimate"])


@dataclass(frozen=True)
class ConceptRow(Row):
    """A concept's accuracy, with its CLIP scores beside it."""

    clip_before: float = 0.0
    clip_after: float = 0.0

    def show_clip(self, side: str) -> str:
        """The CLIP score of ``before`` or ``after``."""
        value = self.clip_before if side == "before" else self.clip_after
        return f"{value:.{decimals(self.clip_before)}f}"


@dataclass(frozen=True)
class CollateralRow(Row):
    """A concept next to the target: how near it is, and what became of it."""

    similarity: float | None = None
    """Cosine of the two texts' features; ``None`` for a concept that was asked for by hand."""
    fate: str = ""
    """``kept``, ``lost`` or why neither can be said."""


@dataclass(frozen=True)
class ConceptGroup:
    """Concepts that share a fate: forgotten, kept within the domain, kept across domains."""

    title: str
    rows: tuple[ConceptRow, ...]


def percent(share: float, digits: int | None = None) -> str:
    """``"96.7 %"``; ``digits=None`` drops a final ``.0``. Only a share of just 1 reads 100 %, of just 0 reads 0 %."""
    number = 100 * share if share in (0, 1) else min(99.9, max(0.1, 100 * share))
    text = f"{number:.1f}"
    return f"{text.removesuffix('.0') if digits is None else text} %"


def decimals(value: float) -> int:
    """Those of what is no share: a CLIP score is of the size of 30, or of 0.3."""
    return 1 if abs(value) >= 2 else 3


def signed(difference: float, digits: int = 1) -> str:
    """With its sign, one decimal or more; zero has none."""
    text = f"{difference:+.{digits}f}"
    return text[1:] if not text.strip("+-0.") else text


def points(before: float, after: float) -> str:
    """The difference of two shares in percentage points."""
    return signed(100 * (after - before))


def plural(noun: str) -> str:
    """More than one of a domain: objects, classes."""
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


def verdict(results: Results) -> str:
    """What happened, in a line of plain words with their intervals."""
    scores = results["effects"]["scores"]
    gone, share = Row("UA", scores["UA"]), percent(scores["UA"]["after"]["estimate"])
    line = f"{results['target']} is gone from {share} of its {gone.images} pictures "
    line += f"(95 % interval {gone.interval('after')}"
    missed = scores["UA"]["before"]["estimate"]
    line += f"; the base misses it in {percent(missed)}, {gone.verdict})" if missed > NEVER else ")"
    if "IRA" not in scores:
        return f"{line}; no prompt asks for another {results['domain']} that the judge tells, the scores have the rest"
    before, after = (percent(scores["IRA"][side]["estimate"]) for side in ("before", "after"))
    others = f"other {plural(results['domain'])}: {before} right before, {after} after"
    return f"{line}; {others} ({Row('IRA', scores['IRA']).verdict})"


def concept_groups(results: Results) -> list[ConceptGroup]:
    """Every concept's figures: the target, the rest of its domain, each other domain."""
    target, domain = results["target"], results["domain"]
    before, after = results["base"]["concepts"], results["erased"]["concepts"]
    members: dict[str, list[str]] = {"Forgotten": [], f"Kept within domain: {plural(domain)}": []}
    for concept, seen in before.items():
        if concept == target:
            title = "Forgotten"
        elif seen["domain"] == domain:
            title = f"Kept within domain: {plural(domain)}"
        else:
            title = f"Kept across domains: {plural(seen['domain'])}"
        members.setdefault(title, []).append(concept)
    effects = results["effects"]["concepts"]

    def row(name: str) -> ConceptRow:
        return ConceptRow(name, effects[name], clip_before=before[name]["clip"], clip_after=after[name]["clip"])

    return [ConceptGroup(title, tuple(map(row, names))) for title, names in members.items() if names]


def score_rows(results: Results) -> list[Row]:
    """The summary scores, with what each means."""
    target, domain, scores = results["target"], results["domain"], results["effects"]["scores"]
    where = {"kept": f"in prompts without {target}", "erased": f"where {target} is asked for"}
    known = {
        "UA": (f"pictures of {target} that no longer show it", "high after"),
        "IRA": (f"other {plural(domain)} that are seen as asked", "unchanged"),
        "none, erased": (f"pictures of {target} that show no {domain} at all", ""),
        "none, kept": (f"other pictures that show no {domain} at all", "low"),
        "CLIP, erased": (f"fit of picture and prompt for {target}", "low after"),
        "CLIP, kept": ("fit of picture and prompt elsewhere", "unchanged"),
    }
    for key in scores:
        if key.startswith("CRA "):
            name, _, side = key.removeprefix("CRA ").rpartition(", ")
            known[key] = (f"{name} seen as asked {where[side]}", "unchanged")
    return [Row(key, scores[key], *known[key]) for key in scores]


def collateral_rows(results: Results) -> list[CollateralRow]:
    """The neighbours, nearest first."""
    rows = []
    for fate in results.get("collateral", ()):
        change = fate["change"]
        effect = {"images": fate["images"], "is_share": True, "before": fate["before"], "after": fate["after"]}
        effect |= {"difference": change["difference"], "verdict": change["verdict"]}
        rows.append(CollateralRow(fate["concept"], effect, similarity=fate["cosine"], fate=fate["verdict"]))
    return rows


def concept_table(results: Results) -> Table:
    """The table per concept, for a terminal."""
    table = Table(
        title=Text("Each concept: how often it is seen"), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("Concept", overflow="fold")
    for heading in ("Base", "Erased", "Points", "Interval", "CLIP\nbase", "CLIP\nerased", "Images"):
        table.add_column(heading, justify="right")
    for group in concept_groups(results):
        table.add_section()
        table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            accuracies = (row.show("before"), row.show("after"), row.difference, row.difference_interval)
            clips = (row.show_clip("before"), row.show_clip("after"))
            table.add_row(Text(f"  {row.name}"), *accuracies, *clips, str(row.images))
    return table


def score_table(results: Results) -> Table:
    """The summary scores, for a terminal."""
    table = Table(title=Text("Summary"), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("Score", overflow="fold")
    for heading in ("Base", "Erased", "Difference", "Interval"):
        table.add_column(heading, justify="right")
    table.add_column("Changed")
    for row in score_rows(results):
        values = (row.show("before"), row.show("after"), row.difference, row.difference_interval)
        table.add_row(Text(row.name), *values, SHORT[row.verdict])
    return table


def print_table(results: Results) -> None:
    """Prints the table per concept, the summary and the verdict."""
    console = Console(highlight=False, markup=False)
    console.print(concept_table(results))
    console.print(score_table(results))
    console.print(verdict(results), soft_wrap=True)
