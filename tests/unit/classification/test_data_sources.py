"""The sources that need no files: digits against scikit-learn, drawings against what drew them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from erase.classification.data import DATA, Digits, Shapes, Source
from erase.classification.images import Images
from erase.config import build, dump
from erase.errors import UserError
from erase.shapes.drawing import draw


def some(labels: list[int], prefix: str = "a", size: int = 8) -> Images:
    count = len(labels)
    names = tuple(f"{prefix}{place}" for place in range(count))
    return Images(torch.zeros(count, 1, size, size, dtype=torch.uint8), torch.tensor(labels), names)


def test_digits_are_those_of_scikit_learn() -> None:
    source, judge = Digits().load(0), load_digits()
    assert source.images.pixels.shape == (1797, 1, 8, 8)
    assert (source.images.pixels.min().item(), source.images.pixels.max().item()) == (0, 255)
    back = source.images.pixels[:, 0].double().numpy() * 16 / 255
    assert np.array_equal(np.rint(back), judge.images)
    assert source.images.labels.tolist() == judge.target.tolist()
    assert (source.classes, source.test) == (tuple("0123456789"), None)


def test_sixteen_levels_of_grey_stay_apart() -> None:
    assert len(Digits().load(0).images.pixels.unique()) == 17


def test_drawing_i_depends_on_the_seed_and_i_alone() -> None:
    many, few = Shapes(images=250, seed=3).load(0), Shapes(images=240, seed=3).load(1)
    assert torch.equal(many.images.pixels[:240], few.images.pixels)
    assert many.images.ids[:240] == few.images.ids
    assert not torch.equal(Shapes(images=240, seed=4).load(0).images.pixels, few.images.pixels)


def test_a_drawing_shows_what_its_label_says() -> None:
    source = Shapes(images=240, label="color", seed=1).load(0)
    first = draw("circle", "red", "flat", np.random.default_rng((1, 0)))
    assert torch.equal(source.images.pixels[0], torch.from_numpy(first).permute(2, 0, 1))
    assert source.classes[source.images.labels[0]] == "red"


def test_noise_has_its_deviation_where_nothing_is_cut_and_leaves_the_drawing_below_it() -> None:
    plain, noisy = (Shapes(images=480, noise=noise).load(0).images for noise in (0.0, 0.1))
    inside = (plain.pixels > 100) & (plain.pixels < 155)  # four deviations from black and from white
    added = noisy.pixels[inside].float() - plain.pixels[inside].float()
    spread = 25.5 / math.sqrt(2 * len(added))
    assert abs(added.std().item() - 25.5) < 5 * spread + 0.1  # rounding adds 1/12 to a variance of 650
    assert abs(added.mean().item()) < 5 * 25.5 / math.sqrt(len(added))
    assert torch.equal(plain.labels, noisy.labels)
    assert plain.ids == noisy.ids


def test_noise_is_cut_at_black_and_white_and_drawn_again_alike() -> None:
    first, again = (Shapes(images=240, noise=1.0, size=8, seed=2).load(0).images.pixels for _ in range(2))
    assert torch.equal(first, again)
    assert (first.min().item(), first.max().item()) == (0, 255)


@pytest.mark.parametrize(("label", "classes"), [("object", 8), ("color", 6), ("style", 5)])
def test_the_classes_of_drawings_are_equally_many(label: str, classes: int) -> None:
    source = build(Shapes, {"name": "shapes", "images": 240, "label": label, "size": 8}).load(0)
    assert source.images.pixels.shape == (240, 3, 8, 8)
    assert torch.bincount(source.images.labels).tolist() == [240 // classes] * classes
    assert len(source.classes) == classes


def test_each_name_selects_its_own_class() -> None:
    assert {name: table.__dataclass_fields__["name"].default for name, table in DATA.items()} == {n: n for n in DATA}
    assert build(Shapes, dump(Shapes(label="style", seed=5))) == Shapes(label="style", seed=5)


def test_a_label_without_a_class_is_refused_by_the_samples_name() -> None:
    with pytest.raises(UserError, match="a1 has the label 2, which is none of the 2 classes"):
        Source(some([0, 2]), None, ("x", "y"))
    with pytest.raises(UserError, match="t0 has the label -1"):
        Source(some([0, 1]), some([-1], "t"), ("x", "y"))


def test_a_source_must_be_of_one_size_and_have_two_classes_and_separate_test_pictures() -> None:
    with pytest.raises(UserError, match=r"\[1, 8, 8\] and \[1, 9, 9\]"):
        Source(some([0, 1]), some([0], "t", size=9), ("x", "y"))
    with pytest.raises(UserError, match="two classes or more; found x"):
        Source(some([0]), None, ("x",))
    with pytest.raises(UserError, match="a0 is both"):
        Source(some([0, 1]), some([0]), ("x", "y"))


def test_a_tenth_of_the_test_pictures_may_be_training_pictures_as_in_official_splits() -> None:
    made = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 1, 8, 8)
    images = replace(some([0, 1] * 5), pixels=made[:10])
    for shared, refused in ((2, False), (3, True)):
        test = replace(some([0] * 20, "t"), pixels=made[10 - shared : 30 - shared])
        if refused:
            with pytest.raises(UserError, match=r"3 of 20 pictures to test on are, .* first t0; at most 10% may be"):
                Source(images, test, ("x", "y"))
        else:
            assert Source(images, test, ("x", "y")).test is test
