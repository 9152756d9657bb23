"""Values for each image as Parquet: one file a metric, which says in its schema how it was measured."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erase.errors import UserError
from erase.evaluation.metrics.protocols import Columns

FORMAT = 1
KEY = b"erase"
"""Of the schema's metadata: JSON with the format, the metric and its identity."""
KEYS = ("case_number", "k", "sha256")
"""Columns that name the image; of a pair, ``sha256`` holds both hashes."""


@dataclass(frozen=True)
class ScoreTable:
    """A metric's values for every image of a folder."""

    metric: str
    identity: Mapping[str, Any]
    """All that shapes the values; see :class:`erase.evaluation.metrics.protocols.Metric`."""
    columns: Columns
    """``case_number``, ``k``, ``sha256``, then the metric's own, one value an image."""

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        lacking = [name for name in KEYS if name not in lengths]
        if lacking or len(set(lengths.values())) != 1:
            raise ValueError(f"{self.metric}: columns of lengths {lengths}; all must be equal, {', '.join(KEYS)} there")

    def __len__(self) -> int:
        return len(self.columns["case_number"])

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of each image, in order."""
        return self.columns["sha256"]

    def column(self, name: str) -> list[Any]:
        """One column; a name that is not there is an error that lists those that are."""
        if name not in self.columns:
            raise UserError(f"{self.metric}: there is no column {name!r}; it has {', '.join(self.columns)}")
        return self.columns[name]


def write_scores(file: Path, table: ScoreTable) -> None:
    """Writes the file whole or not at all."""
    described = json.dumps({"format": FORMAT, "metric": table.metric, "identity": table.identity}, sort_keys=True)
    arrow = pa.table(dict(table.columns)).replace_schema_metadata({KEY: described.encode()})
    stream = io.BytesIO()
    pq.write_table(arrow, stream, compression="zstd")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as opened:
            opened.write(stream.getbuffer())
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read_scores(file: Path) -> ScoreTable:
    """The table of a file; one that is missing, damaged or of another kind is an error."""
    try:
        arrow = pq.read_table(file)
        described = json.loads((arrow.schema.metadata or {})[KEY])
        if described["format"] != FORMAT:
            raise UserError(f"{file}: is of format {described['format']}; this version reads {FORMAT}")
        return ScoreTable(described["metric"], described["identity"], arrow.to_pydict())
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file; measure it first") from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as scores: {error}; delete it and measure again") from None


def load_scores(file: Path, identity: Mapping[str, Any], hashes: Sequence[str]) -> ScoreTable | None:
    """The table if it may be used again: measured in the same way, of the same images in the same order.

    ``None`` says that it must be measured: the file is missing, cannot be read, or is of another identity or images.
    """
    if not file.is_file():
        return None
    try:
        table = read_scores(file)
    except UserError:
        return None
    same = table.identity == json.loads(json.dumps(identity)) and table.hashes == list(hashes)
    return table if same else None
