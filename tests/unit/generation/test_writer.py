"""Images are written beside the sampling; what goes wrong there is raised here."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from erase.errors import UserError
from erase.generation import writer as module
from erase.generation.records import read_written, verified
from erase.generation.writer import ImageWriter, encode_png, write_bytes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path


def pixels(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (8, 16, 3), dtype=np.uint8)


def write(place: Path, count: int) -> ImageWriter:
    with ImageWriter(place, place / "part.jsonl") as writer:
        for i in range(count):
            writer.add([f"images/{i}.png"], [pixels(i)])
    return writer


def test_a_png_holds_the_pixels_and_equal_pixels_give_equal_bytes() -> None:
    content = encode_png(pixels(0))
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (16, 8), "RGB")
        assert np.array_equal(np.asarray(image), pixels(0))
    assert encode_png(pixels(0)) == content


def test_at_the_end_every_image_is_in_place_and_noted(place: Path) -> None:
    assert write(place, 200).written == 200
    notes = list(read_written(place / "part.jsonl"))
    assert sorted(note.file for note in notes) == sorted(f"images/{i}.png" for i in range(200))
    assert len(verified(place, notes)) == 200
    assert {file.suffix for file in (place / "images").iterdir()} == {".png"}
    sample = (place / "images" / "7.png").read_bytes()
    assert hashlib.sha256(sample).hexdigest() in {note.sha256 for note in notes}


def test_notes_are_added_to_those_that_are_there(place: Path) -> None:
    write(place, 2)
    write(place, 3)
    assert len(list(read_written(place / "part.jsonl"))) == 5


def test_the_body_goes_on_while_images_are_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(file: Path, content: bytes) -> None:
        gate.wait(10)
        write_bytes(file, content)

    monkeypatch.setattr(module, "write_bytes", slow)
    with ImageWriter(place, place / "part.jsonl") as writer:
        writer.add(["images/0.png"], [pixels(0)])
        assert writer.written == 0
        gate.set()
    assert writer.written == 1


def test_only_so_many_images_wait(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    monkeypatch.setattr(module, "write_bytes", lambda *_: time.sleep(0.01))
    with ImageWriter(place, place / "part.jsonl") as writer:
        for i in range(20):
            writer.add([f"images/{i}.png"], [pixels(i)])
            assert len(writer._waiting) <= 3


def test_a_write_that_fails_is_raised_with_its_remedy_and_not_noted(place: Path) -> None:
    says = r"output_dir: .*could not be written.*run the same command again, without --overwrite"
    with pytest.raises(UserError, match=says), ImageWriter(place, place / "part.jsonl") as writer:
        writer.add(["images/0.png", "nowhere/1.png"], [pixels(0), pixels(1)])
    assert [note.file for note in read_written(place / "part.jsonl")] == ["images/0.png"]


def test_a_write_that_fails_ends_the_body_soon(place: Path) -> None:
    with pytest.raises(UserError), ImageWriter(place, place / "part.jsonl") as writer:
        for i in range(10_000):
            writer.add([f"nowhere/{i}.png"], [pixels(0)])
    assert i < 9_999


def test_an_error_of_the_body_is_the_one_that_is_seen_and_what_was_added_is_kept(place: Path) -> None:
    with pytest.raises(ValueError, match="mine"), ImageWriter(place, place / "part.jsonl") as writer:
        writer.add([f"images/{i}.png" for i in range(20)] + ["nowhere/0.png"], [pixels(i) for i in range(21)])
        raise ValueError("mine")
    assert writer.written == 20


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "x", "text")  # type: ignore[arg-type]
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x", b"old")]
