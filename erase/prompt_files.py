"""Reads prompts from CSV files as the field writes them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erase.errors import UserError

PROMPT_COLUMNS = ("prompt", "caption", "text")
"""Names that the prompt column goes by, the first found is taken."""


def read_rows(file: Path, key: str) -> list[dict[str, str]]:
    """Every row as column to cell; a byte-order mark and newlines in quotes are understood.

    A row with more cells than the header is refused: a comma without quotes has cut its prompt.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except FileNotFoundError:
        raise UserError(f"{key}: {file}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{key}: {file} cannot be read as a UTF-8 CSV: {error}") from None
    if not rows:
        raise UserError(f"{key}: {file} holds no rows; a header and one row at least are needed")
    long = [str(n) for n, row in enumerate(rows, start=1) if any(cell.strip() for cell in _beyond(row))]
    if long:
        remedy = "put quotes around a prompt with commas"
        raise UserError(f"{key}: {file}: row {', '.join(long[:5])} has more cells than the header; {remedy}")
    return [{(name or "").strip(): cell for name, cell in row.items() if isinstance(cell, str)} for row in rows]


def _beyond(row: Mapping[Any, Any]) -> list[str]:
    """The cells beyond the header, which DictReader puts under ``None``."""
    return row.get(None, [])


def read_prompts(file: Path, key: str) -> list[str]:
    """The prompts of a CSV, in order, without repeats; ``key`` is the setting that named the file."""
    rows = read_rows(file, key)
    columns = list(dict.fromkeys(name for row in rows for name in row))  # a short first row lacks some
    column = next((name for name in PROMPT_COLUMNS if name in columns), None)
    if column is None:
        raise UserError(f"{key}: {file} has the columns {', '.join(columns)}; one named `prompt` is needed")
    prompts = [row.get(column, "").strip() for row in rows]
    empty = [str(number) for number, prompt in enumerate(prompts, start=1) if not prompt]
    if empty:
        raise UserError(f"{key}: {file}: row {', '.join(empty[:5])} has no prompt")
    return list(dict.fromkeys(prompts))
