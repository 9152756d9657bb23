"""Tensors one after the other without a copy: what is mapped from a file stays in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


class Stacked:
    """As ``torch.cat(parts)``, for reading: only the rows that are asked for are copied."""

    def __init__(self, parts: Sequence[Tensor | Stacked]) -> None:
        self._parts: list[Tensor] = []
        for part in parts:
            self._parts += part._parts if isinstance(part, Stacked) else [part]
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.shape = torch.Size((self._ends[-1], *self._parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (row for part in self._parts for row in part)

    def __getitem__(self, key: Any) -> Tensor:
        """What a tensor would give for a row, a slice, or rows' indices; a copy in memory."""
        rows = torch.arange(len(self))[key]
        return self._row(int(rows)) if rows.ndim == 0 else torch.stack([self._row(row) for row in rows.tolist()])

    def _row(self, row: int) -> Tensor:
        place = next(place for place, end in enumerate(self._ends) if row < end)
        return self._parts[place][row - self._ends[place]]
