"""Prompt sets as CSV: reads what the field writes, under its several column names, and writes one form of its own.

No row is guessed at: a missing prompt, an empty seed or a number that is none is an error that names the row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erase.errors import UserError
from erase.generation.prompts import PromptRow, check_set, evaluation_seed
from erase.prompt_files import PROMPT_COLUMNS, read_rows
from erase.provenance import write_text

ALIASES = {
    "case_number": ("case_number",),
    "prompt": PROMPT_COLUMNS,
    "seed": ("evaluation_seed", "sd_seed", "seed"),
    "guidance_scale": ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance"),
    "width": ("sd_image_width", "image_width", "width"),
    "height": ("sd_image_height", "image_height", "height"),
    "steps": ("evaluation_steps", "num_inference_steps", "sd_steps", "steps"),
    "group": ("group", "categories", "category", "type"),
}
"""What each value's column is called in the field, in any case of letters; the first that is there is read."""
PLAIN_DOMAINS = ("concept", "class", "artist")
"""Columns of concepts whose name is their domain's; any other domain is ``concept/<domain>``."""
PREFIX = "concept/"
WRITTEN = {name: names[0] for name, names in ALIASES.items()}
"""The canonical form's column names: those that the field's own scripts read."""
SHOWN = 5


def read_prompt_set(file: Path, key: str = "prompts", seed: int | None = None) -> list[PromptRow]:
    """The rows of a CSV, in order; ``key`` is the setting that named the file.

    Without a ``case_number`` column the row's number, from 0, stands for it. Without a seed column row i's seed is
    derived from ``seed`` and i. Columns of no known name are left alone.
    """
    rows = read_rows(file, key)
    columns = _Columns.of(rows)
    if "prompt" not in columns.names:
        raise UserError(f"{key}: {file} has the columns {', '.join(columns.all)}; one named `prompt` is needed")
    if "seed" not in columns.names and seed is None:
        raise UserError(f"{key}: {file} has no seeds: no column {', '.join(ALIASES['seed'])}; give a seed for the set")
    made, problems = [], []
    for index, row in enumerate(rows):
        try:
            made.append(columns.read(row, index, seed))
        except ValueError as error:
            problems.append(f"{key}: {file}: row {index + 1}: {error}")
    if problems:
        more = [f"{key}: {file}: {len(problems) - SHOWN} more rows are wrong"] if len(problems) > SHOWN else []
        raise UserError(*problems[:SHOWN], *more)
    check_set(made, f"{key}: {file}")
    return made


@dataclass(frozen=True)
class _Columns:
    """Which column of a file holds what."""

    all: tuple[str, ...]
    names: Mapping[str, str]
    """Field of a row to its column."""
    domains: Mapping[str, str]
    """Domain to its column."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]]) -> _Columns:
        columns = tuple(dict.fromkeys(name for row in rows for name in row))  # a short row lacks the last ones
        known = {name.lower(): name for name in reversed(columns)}
        names = {
            field: known[alias] for field, aliases in ALIASES.items() for alias in reversed(aliases) if alias in known
        }
        domains = {name: known[name] for name in PLAIN_DOMAINS if name in known}
        explicit = [name for name in columns if name.lower().startswith(PREFIX)]
        domains |= {name[len(PREFIX) :].strip(): name for name in explicit}
        return cls(columns, names, domains)

    def read(self, row: Mapping[str, str], index: int, seed: int | None) -> PromptRow:
        """One row; a :class:`ValueError` says what is wrong with it."""
        cells = {field: row.get(column, "") for field, column in self.names.items()}
        whole = {field: _whole(field, cells.get(field, "")) for field in ("seed", "width", "height", "steps")}
        own = whole["seed"]
        if own is None:
            if "seed" in self.names or seed is None:
                raise ValueError(f"has no seed in the column {self.names['seed']}")
            own = evaluation_seed(seed, index)
        case = cells["case_number"].strip() if "case_number" in cells else str(index)
        found = {domain: row.get(column, "").strip() for domain, column in self.domains.items()}
        return PromptRow(
            case_number=case,
            prompt=cells["prompt"],
            seed=own,
            guidance_scale=_number("guidance_scale", cells.get("guidance_scale", "")),
            width=whole["width"],
            height=whole["height"],
            steps=whole["steps"],
            group=cells.get("group", "").strip(),
            concepts={domain: concept for domain, concept in found.items() if concept},
        )


def _number(field: str, cell: str) -> float | None:
    try:
        return float(cell) if cell.strip() else None
    except ValueError:
        raise ValueError(f"{field} {cell!r}: must be a number") from None


def _whole(field: str, cell: str) -> int | None:
    """A whole number; spreadsheets and pandas write some as ``512.0``."""
    text = cell.strip()
    whole, point, rest = text.partition(".")
    if point and not rest.strip("0"):
        text = whole
    try:
        return int(text) if text else None
    except ValueError:
        raise ValueError(f"{field} {cell!r}: must be a whole number") from None


def write_prompt_set(rows: Sequence[PromptRow], file: Path) -> None:
    """Writes a set in its canonical form, atomically; it reads back equal."""
    check_set(rows, str(file))
    write_text(file, canonical_csv(rows))


def canonical_csv(rows: Sequence[PromptRow]) -> str:
    """The canonical form; a column that no row fills is left out."""
    domains = list(dict.fromkeys(domain for row in rows for domain in row.concepts))
    cells = [dict(_cells(row)) for row in rows]
    filled = {column for row in cells for column, text in row.items() if text}
    columns = [column for column in [*WRITTEN.values(), *(PREFIX + domain for domain in domains)] if column in filled]
    header = {column: column for column in columns}
    return "".join(_line([row.get(column, "") for column in columns]) for row in [header, *cells])


def _line(cells: Sequence[str]) -> str:
    """A line of CSV; Python 3.11 quotes a carriage return only where lines end with one."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\r\n").writerow(cells)
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _cells(row: PromptRow) -> Iterator[tuple[str, str]]:
    for field, column in WRITTEN.items():
        value = getattr(row, field)
        yield column, "" if value is None else str(value)
    for domain, concept in row.concepts.items():
        yield PREFIX + domain, concept
