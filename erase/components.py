"""How a component is declared: a frozen dataclass, validated when made, selected by its ``name``."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
"""No unknown key, no infinite number; a field's meaning is the description beside it."""
