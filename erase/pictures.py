"""What Pillow raises for files that are no whole picture."""

from __future__ import annotations

from PIL import Image

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
