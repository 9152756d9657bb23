"""Pillow's pictures: what it raises for files that are no whole one, and their pixels as RGB."""

from __future__ import annotations

from PIL import Image

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
DEEP = ("I", "F")
"""How Pillow's modes of more than 8 bits a pixel begin; turned to RGB, all above 255 would become white."""


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB; one of ``DEEP`` is refused, as damaged ones are: nothing says what its white is."""
    if image.mode.startswith(DEEP):
        raise ValueError(f"its mode is {image.mode}, more than 8 bits a channel; save it with 8")
    return image.convert("RGB")
