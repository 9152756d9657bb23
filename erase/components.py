"""How a component is declared: a frozen dataclass, validated when made, selected by its ``name``; and its paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
"""No unknown key, no infinite number; a field's meaning is the description beside it."""


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~nobody/x
        raise ValueError(str(error)) from None


Place = Annotated[Path, AfterValidator(_expanded)]
"""A file or folder; `~` is the home folder, whoever reads it."""


def _expanded_name(name: str) -> str:
    return str(_expanded(Path(name))) if name.startswith("~") else name


Name = Annotated[str, Field(min_length=1), AfterValidator(_expanded_name)]
"""A file or folder, or a name that is none, such as a Hub id; `~` at its beginning is the home folder."""
