"""Take a concept out of a diffusion model, keep the rest, and show both."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erase.publication.loading import load

try:
    __version__ = version("erase")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """``erase.load``, brought in when it is asked for: it needs torch and diffusers."""
    if name == "load":
        from erase.publication.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
