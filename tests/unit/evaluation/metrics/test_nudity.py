"""NudeNet 3, run for real on schematic figures: what it reports is stored, no more and no less."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFilter

from erase.errors import UserError
from erase.evaluation.metrics import nudity
from erase.evaluation.metrics.nudity import EXPOSED, FLOOR, Nudity, read_boxes
from tests.unit.evaluation.metrics.material import Drawn, drawings

nudenet = pytest.importorskip("nudenet", reason="the extra `nudity` is not installed")
SKIN, SHADE = (214, 162, 132), (168, 100, 88)


def figure(tint: int = 0, size: int = 320) -> Image.Image:
    """A mannequin of circles and boxes on gray: enough for the detector, and nobody."""
    image = Image.new("RGB", (320, 320), (120 + tint, 130, 140))
    pen = ImageDraw.Draw(image)
    pen.ellipse((130, 20, 190, 95), fill=SKIN)
    pen.rounded_rectangle((90, 105, 230, 330), 40, fill=SKIN)
    for x in (125, 195):
        pen.ellipse((x - 28, 136, x + 28, 188), fill=SKIN, outline=SHADE, width=2)
        pen.ellipse((x - 7, 158, x + 7, 172), fill=SHADE)
    pen.ellipse((156, 225, 164, 235), fill=SHADE)
    return image.filter(ImageFilter.GaussianBlur(1.5)).resize((size, size))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    plain, _ = drawings(2)
    return [figure(), figure(40, 256), figure(80).crop((40, 80, 290, 280)), *(i.resize((320, 320)) for i in plain)]


@pytest.fixture(scope="module")
def columns(images: list[Image.Image]) -> dict[str, list[Any]]:
    return Nudity()(images, [Drawn("x")] * len(images))


def test_a_figure_is_found_and_a_drawing_of_a_shape_is_not(columns: dict[str, list[Any]]) -> None:
    assert set(columns) == {*EXPOSED, "detections"}
    assert columns["FEMALE_BREAST_EXPOSED"][0] > 0.5
    for name in EXPOSED:
        assert columns[name][3:] == [0.0, 0.0]


def test_the_boxes_are_those_of_nudenet_on_the_file(
    images: list[Image.Image], columns: dict[str, list[Any]], tmp_path: Path
) -> None:
    """The peers give the detector a file's name; OpenCV reads it as blue, green, red."""
    detector = nudenet.NudeDetector()
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")
        found = detector.detect(str(tmp_path / f"{index}.png"))
        assert json.loads(columns["detections"][index]) == found


def test_a_class_has_its_highest_score(columns: dict[str, list[Any]]) -> None:
    boxes = read_boxes(columns["detections"])
    assert sum(map(len, boxes)) >= 2
    for index, found in enumerate(boxes):
        for name in EXPOSED:
            assert columns[name][index] == max((b["score"] for b in found if b["class"] == name), default=0.0)
        for box in found:
            assert FLOOR < box["score"] <= 1
            assert len(box["box"]) == 4


def test_a_transparent_or_gray_picture_is_read_as_color(columns: dict[str, list[Any]]) -> None:
    found = Nudity()([figure().convert("RGBA"), figure().convert("L")], [Drawn("x")] * 2)
    assert found["detections"][0] == columns["detections"][0]
    assert len(found["detections"]) == 2


def test_the_identity_names_the_weights_inside_the_package() -> None:
    identity = Nudity().identity()
    assert identity["library"] == "nudenet" and identity["version"].startswith("3.")
    assert identity["score_floor"] == 0.25 and len(identity["weights_sha256"]) == 64
    assert identity["runtime"]["library"] == "onnxruntime"
    json.dumps(identity)


def test_without_the_extra_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    nudity._detector.cache_clear()
    nudity._weights_hash.cache_clear()
    with pytest.raises(UserError, match="NudeNet is not installed"):
        Nudity().identity()
    with pytest.raises(UserError, match="NudeNet is not installed"):
        Nudity().check([Drawn("x")])
    with pytest.raises(UserError, match=r"NudeNet is not installed .*; pip install 'erase\[nudity\]'"):
        Nudity()([figure()], [Drawn("x")])
