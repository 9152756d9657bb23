"""Draws Shapes World: one anti-aliased object, in one color and one style, on white."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from erase.embedded import IMAGE_SIZE

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "green": (40, 160, 60),
    "blue": (35, 70, 215),
    "yellow": (245, 200, 20),
    "purple": (145, 40, 185),
    "cyan": (0, 185, 210),
}
SUPERSAMPLING = 4
TINT = 0.22
"""Share of the color in the pale ground of the dotted, striped and gradient styles."""

Points = np.ndarray
"""``[n, 2]`` corners in units of the object's radius, y down."""


def _arc(radius: float, start: float, stop: float, center: tuple[float, float] = (0.0, 0.0)) -> Points:
    angle = np.linspace(start, stop, 64)
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], axis=1)


def _star() -> Points:
    angle = np.arange(10) * math.pi / 5 - math.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.1, 0.46)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -(y + 2.5) / 15], axis=1)


def _cross() -> Points:
    a, b = 0.36, 1.0
    corners = [
        (-a, -b),
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    return np.array(corners)


def _moon() -> Points:
    """A crescent: the outer circle's arc, and back along a smaller circle's that is set off to the right."""
    inner, offset = 0.8, 0.48
    x = (1 - inner**2 + offset**2) / (2 * offset)
    outer_angle = math.atan2(math.sqrt(1 - x**2), x)
    inner_angle = math.atan2(math.sqrt(1 - x**2), x - offset)
    outer = _arc(1.0, outer_angle, 2 * math.pi - outer_angle)
    return np.concatenate([outer, _arc(inner, 2 * math.pi - inner_angle, inner_angle, (offset, 0.0))])


def _square() -> Points:
    return 0.86 * np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


def _triangle() -> Points:
    return np.array([(0.0, -1.05), (1.05, 0.8), (-1.05, 0.8)])


CONTOURS: dict[str, Callable[[], list[Points]]] = {
    "circle": lambda: [_arc(1.0, 0, 2 * math.pi)],
    "square": lambda: [_square()],
    "triangle": lambda: [_triangle()],
    "star": lambda: [_star()],
    "heart": lambda: [_heart()],
    "cross": lambda: [_cross()],
    "ring": lambda: [_arc(1.0, 0, 2 * math.pi), _arc(0.48, 0, 2 * math.pi)],
    "moon": lambda: [_moon()],
}
"""Each object's contours: the outside, then its hole if it has one."""


def _mask_and_outline(contours: list[Points], width: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    mask, line = Image.new("L", (size, size)), Image.new("L", (size, size))
    pen = ImageDraw.Draw(line)
    for index, points in enumerate(contours):
        corners = [tuple(point) for point in points]
        ImageDraw.Draw(mask).polygon(corners, fill=0 if index else 255)
        pen.line([*corners, *corners[:2]], fill=255, width=round(2 * width), joint="curve")
    inside = np.asarray(mask, dtype=np.float32) / 255
    return inside, inside * np.asarray(line, dtype=np.float32) / 255


def _ink(style: str, outline: np.ndarray, radius: float, phase: tuple[float, float], unit: float) -> np.ndarray:
    """How much of the color, 0 to 1, each point inside the object takes: ``[size, size]``."""
    size = len(outline)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / unit
    if style == "flat":
        return np.ones_like(x)
    if style == "outline":
        return outline
    if style == "striped":
        return np.where((x + y + phase[0]) % 5.6 < 2.8, 1.0, TINT)
    if style == "dotted":
        period = 4.4
        dx, dy = (x + phase[0]) % period - period / 2, (y + phase[1]) % period - period / 2
        return np.where(dx**2 + dy**2 < 1.45**2, 1.0, TINT)
    if style == "gradient":
        middle = size / unit / 2
        return np.clip(1.0 - (1 - TINT / 2) * (y - middle + radius) / (2 * radius), TINT / 2, 1.0)
    raise ValueError(f"style {style!r} is not drawn; known: flat, outline, dotted, striped, gradient")


def paint(
    contours: list[Points], color: str, style: str, rng: np.random.Generator, size: int = IMAGE_SIZE
) -> np.ndarray:
    """Contours as an RGB picture ``[size, size, 3]`` uint8; place, size and tilt are drawn from ``rng``."""
    unit = SUPERSAMPLING
    radius, tilt = rng.uniform(0.31, 0.39) * size, math.radians(rng.uniform(-12, 12))
    center = size / 2 + rng.uniform(-0.06, 0.06, 2) * size
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    placed = [(points @ turn * radius + center) * unit for points in contours]
    mask, outline = _mask_and_outline(placed, 1.9 * unit * size / 32, size * unit)
    phase = tuple(rng.uniform(0, 5.6, 2))
    ink = mask * _ink(style, outline, radius * 32 / size, (phase[0], phase[1]), unit * size / 32)
    rgb = 255 - ink[..., None] * (255 - np.array(COLORS[color], dtype=np.float32))
    rgb = rgb.reshape(size, unit, size, unit, 3).mean(axis=(1, 3))
    return np.rint(rgb).astype(np.uint8)


def draw(object_: str, color: str, style: str, rng: np.random.Generator, size: int = IMAGE_SIZE) -> np.ndarray:
    """One drawing: ``[size, size, 3]`` uint8; what the words leave open is drawn from ``rng``."""
    return paint(CONTOURS[object_](), color, style, rng, size)
