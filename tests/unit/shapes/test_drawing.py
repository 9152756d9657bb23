"""The drawings of Shapes World: repeatable, all different, and what their words say."""

from __future__ import annotations

import numpy as np
import pytest

from erase.embedded import IMAGE_SIZE, VOCABULARY
from erase.shapes.build.drawings import COMBINATIONS
from erase.shapes.drawing import COLORS, CONTOURS, draw

OBJECTS, STYLES = VOCABULARY.domains["object"], VOCABULARY.domains["style"]


def drawing(
    object_: str = "star", color: str = "red", style: str = "flat", seed: int = 0, size: int = 32
) -> np.ndarray:
    return draw(object_, color, style, np.random.default_rng(seed), size)


def inked(picture: np.ndarray) -> np.ndarray:
    """Where the picture is not white."""
    return np.any(picture < 250, axis=-1)


def test_what_can_be_drawn_is_what_can_be_said() -> None:
    assert set(CONTOURS) == set(OBJECTS)
    assert set(COLORS) == set(VOCABULARY.domains["color"])


def test_all_240_combinations_are_drawn_and_no_two_are_alike() -> None:
    pictures = [drawing(c.concepts["object"], c.concepts["color"], c.concepts["style"]) for c in COMBINATIONS]
    assert len(pictures) == 240 == len(OBJECTS) * len(COLORS) * len(STYLES)
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) == (32, 32, 3)
        assert 0.05 < inked(picture).mean() < 0.7
    assert len({picture.tobytes() for picture in pictures}) == 240


def test_two_combinations_differ_by_far_more_than_one_level() -> None:
    flat = np.stack([drawing(c.concepts["object"], c.concepts["color"], c.concepts["style"]) for c in COMBINATIONS])
    flat = flat.reshape(240, -1).astype(np.float32) / 255
    distance = np.sqrt(((flat[:, None, ::7] - flat[None, :, ::7]) ** 2).mean(-1))
    assert distance[~np.eye(240, dtype=bool)].min() > 0.02


@pytest.mark.parametrize("style", STYLES)
def test_the_same_stream_draws_the_same_picture_and_another_one_another(style: str) -> None:
    assert np.array_equal(drawing(style=style), drawing(style=style))
    assert not np.array_equal(drawing(style=style), drawing(style=style, seed=1))


@pytest.mark.parametrize("object_", OBJECTS)
def test_objects_touch_the_picture_s_border_with_a_tip_at_most(object_: str) -> None:
    for seed in range(30):
        touched = inked(drawing(object_, seed=seed))
        touched[1:-1, 1:-1] = False
        assert touched.sum() <= 1


@pytest.mark.parametrize("color", list(COLORS))
def test_the_ink_of_a_flat_object_is_its_color(color: str) -> None:
    picture = drawing("square", color, "flat").reshape(-1, 3)
    colors, counts = np.unique(picture[inked(picture)], axis=0, return_counts=True)
    assert tuple(colors[counts.argmax()]) == COLORS[color]


def test_a_ring_has_a_hole_and_a_circle_has_none() -> None:
    middle = slice(14, 18)
    assert not inked(drawing("ring"))[middle, middle].any()
    assert inked(drawing("circle"))[middle, middle].all()


def test_an_outline_leaves_the_inside_white() -> None:
    outline, flat = inked(drawing("circle", style="outline")), inked(drawing("circle", style="flat"))
    assert not outline[15:17, 15:17].any()
    assert (outline <= flat).all() and outline.sum() < 0.7 * flat.sum()


def test_a_gradient_falls_from_top_to_bottom() -> None:
    column = drawing("square", "blue", "gradient")[8:24, 16, 0].astype(int)  # red rises as the blue ink fades
    assert (np.diff(column) >= 0).all() and column[-1] - column[0] > 80


@pytest.mark.parametrize("style", ["dotted", "striped"])
def test_a_pattern_alternates_the_color_and_its_tint(style: str) -> None:
    inside = drawing("square", "blue", style)[10:22, 10:22, 0]
    assert inside.max() > 180 and inside.min() < 80


def test_a_larger_picture_shows_the_same() -> None:
    large = drawing(size=128).reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(large - drawing()).mean() < 8  # of 255: edges alone


def test_an_unknown_style_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="style 'wavy' is not drawn; known: flat, outline, dotted, striped, gradient"):
        drawing(style="wavy")
