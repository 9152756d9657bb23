"""Update rules: two objectives in, one gradient out. Domain-free; the table is closed."""

from __future__ import annotations

from erase.updates.lur import LUR
from erase.updates.weighted_sum import WeightedSum

Update = LUR | WeightedSum
UPDATES: dict[str, type[Update]] = {"lur": LUR, "weighted_sum": WeightedSum}

__all__ = ["LUR", "UPDATES", "Update", "WeightedSum"]
