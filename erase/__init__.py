"""Take a concept out of a diffusion model, keep the rest, and show both."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("erase")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
