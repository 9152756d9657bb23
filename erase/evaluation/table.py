"""The figures in words and rows, the same on the page and in the terminal; and the terminal's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Results = Mapping[str, Any]
"""What ``results.json`` holds."""


@dataclass(frozen=True)
class ConceptRow:
    """One concept before and after; accuracies are shares 0 to 1, CLIP scores 100 x cosine."""

    concept: str
    before: float
    after: float
    clip_before: float
    clip_after: float
    images: int


@dataclass(frozen=True)
class ConceptGroup:
    """Concepts that share a fate: forgotten, kept within the domain, kept across domains."""

    title: str
    rows: tuple[ConceptRow, ...]


@dataclass(frozen=True)
class ScoreRow:
    """One score of the base and of the erased model."""

    name: str
    meaning: str
    before: float
    after: float
    wanted: str
    """What a good erasure does to it: "high after", "unchanged"; empty if neither is good in itself."""
    measured_on: int
    """How many judgments it is made of."""
    is_share: bool = True
    """Whether it is a share, 0 to 1, and not a CLIP score."""

    def show(self, value: float) -> str:
        """A value of this score."""
        return percent(value, 1) if self.is_share else f"{value:.1f}"

    @property
    def difference(self) -> str:
        """After less before: points for a share, the plain difference for a CLIP score."""
        return points(self.before, self.after) if self.is_share else signed(self.after - self.before)


def percent(share: float, digits: int | None = None) -> str:
    """``"96.7 %"``; ``digits=None`` drops a final ``.0``. Only a share of just 1 reads 100 %, of just 0 reads 0 %."""
    number = 100 * share if share in (0, 1) else min(99.9, max(0.1, 100 * share))
    text = f"{number:.1f}"
    return f"{text.removesuffix('.0') if digits is None else text} %"


def signed(difference: float) -> str:
    """One decimal with its sign; zero has none."""
    text = f"{difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def points(before: float, after: float) -> str:
    """The difference of two shares in percentage points."""
    return signed(100 * (after - before))


def plural(noun: str) -> str:
    """More than one of a domain: objects, classes."""
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


def verdict(results: Results) -> str:
    """What happened, in a line of plain words."""
    before, after = results["base"]["scores"], results["erased"]["scores"]
    return (
        f"{results['target']} is gone from {percent(after['UA'])} of its pictures; "
        f"other {plural(results['domain'])}: {percent(before['IRA'])} right before, {percent(after['IRA'])} after"
    )


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
    return [
        ConceptGroup(title, tuple(_concept_row(name, before[name], after[name]) for name in names))
        for title, names in members.items()
        if names
    ]


def _concept_row(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> ConceptRow:
    return ConceptRow(name, before["accuracy"], after["accuracy"], before["clip"], after["clip"], after["images"])


def score_rows(results: Results) -> list[ScoreRow]:
    """The summary scores, with what each means."""
    target, domain = results["target"], results["domain"]
    before, after = results["base"]["scores"], results["erased"]["scores"]
    erased, kept = after["images_erased"], after["images_kept"]

    def row(name: str, key: str, meaning: str, wanted: str, measured_on: int, is_share: bool = True) -> ScoreRow:
        return ScoreRow(name, meaning, before[key], after[key], wanted, measured_on, is_share)

    def across(prompts: str, where: str, measured_on: int) -> list[ScoreRow]:
        pairs = [(d, before["across"][d][prompts], after["across"][d][prompts]) for d in after["across"]]
        return [
            ScoreRow(f"CRA {d}, {prompts} prompts", f"{d} seen as asked {where}", b, a, "unchanged", measured_on)
            for d, b, a in pairs
        ]

    return [
        row("UA", "UA", f"pictures of {target} that no longer show it", "high after", erased),
        row("IRA", "IRA", f"other {plural(domain)} that are seen as asked", "unchanged", kept),
        *across("kept", f"in prompts without {target}", kept),
        *across("erased", f"where {target} is asked for", erased),
        row("none, erased prompts", "none_erased", f"pictures of {target} that show no {domain} at all", "", erased),
        row("none, kept prompts", "none_kept", f"other pictures that show no {domain} at all", "low", kept),
        row(
            "CLIP, erased prompts", "clip_erased", f"fit of picture and prompt for {target}", "low after", erased, False
        ),
        row("CLIP, kept prompts", "clip_kept", "fit of picture and prompt elsewhere", "unchanged", kept, False),
    ]


def concept_table(results: Results) -> Table:
    """The table per concept, for a terminal."""
    table = Table(
        title=Text("Each concept: how often it is seen"), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("Concept", overflow="fold")
    for heading in ("Base", "Erased", "Points", "CLIP\nbase", "CLIP\nerased", "Images"):
        table.add_column(heading, justify="right")
    for group in concept_groups(results):
        table.add_section()
        table.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            accuracies = (percent(row.before, 1), percent(row.after, 1), points(row.before, row.after))
            table.add_row(
                Text(f"  {row.concept}"),
                *accuracies,
                f"{row.clip_before:.1f}",
                f"{row.clip_after:.1f}",
                str(row.images),
            )
    return table


def score_table(results: Results) -> Table:
    """The summary scores, for a terminal."""
    table = Table(title=Text("Summary"), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("Score", overflow="fold")
    for heading in ("Base", "Erased", "Difference"):
        table.add_column(heading, justify="right")
    table.add_column("Wanted")
    for row in score_rows(results):
        table.add_row(Text(row.name), row.show(row.before), row.show(row.after), row.difference, row.wanted)
    return table


def print_table(results: Results) -> None:
    """Prints the table per concept, the summary and the verdict."""
    console = Console(highlight=False, markup=False)
    console.print(concept_table(results))
    console.print(score_table(results))
    console.print(verdict(results), soft_wrap=True)
