"""A finished folder: complete, true to its hashes, read as a stream."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from erase.errors import UserError
from erase.generation.folder import ImageFolder, list_folder, open_folder
from erase.generation.run import generate_folder
from tests.generation import Painter, rows_of, settings, write_set
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    """Ten rows, two images of each, painted."""
    place = tmp_path_factory.mktemp("made")
    file = write_set(place, 10, group="target", concepts={"object": "star"})
    return generate_folder(
        settings(save_tiny(place / "model"), file, place / "out", images_per_prompt=2), make_sampler=Painter().make
    )


@pytest.fixture
def copy(made: ImageFolder, tmp_path: Path) -> Path:
    return shutil.copytree(made.folder, tmp_path / "copy")


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_folder(folder)
    (problem,) = caught.value.problems
    return problem


def test_its_pictures_are_the_rows_k_times_in_order(made: ImageFolder) -> None:
    expected = [(row, k) for row in rows_of(10) for k in range(2)]
    assert [(p.case_number, p.k, p.prompt, p.seed) for p in made.pictures] == [
        (row.case_number, k, row.prompt, row.image_seed(k)) for row, k in expected
    ]
    assert {p.group for p in made.pictures} == {"target"}
    assert dict(made.pictures[0].concepts) == {"object": "star"}
    assert all(p.file.is_file() for p in made.pictures)


def test_opening_it_gives_what_making_it_gave(made: ImageFolder) -> None:
    again = open_folder(made.folder)
    assert again.pictures == made.pictures
    assert again.header == made.header
    assert (again.made.images, made.made.images) == (0, 20)


def test_the_manifest_has_all_that_made_an_image(made: ImageFolder) -> None:
    lines = [json.loads(line) for line in (made.folder / "manifest.jsonl").read_text().splitlines()]
    assert list(lines[0]) == [
        "case_number", "k", "prompt", "seed", "steps", "guidance_scale", "width", "height",
        "scheduler", "model_hash", "lora_hash", "file", "bytes", "sha256",
    ]  # fmt: skip
    assert (lines[4]["steps"], lines[4]["guidance_scale"]) == (3, 1.0), "the row's own"
    assert (lines[0]["steps"], lines[0]["guidance_scale"]) == (2, 4.0), "the run's"
    assert {(line["width"], line["height"], line["scheduler"]) for line in lines} == {(16, 16, "DDIMScheduler")}
    assert {line["model_hash"] for line in lines} == {made.header["model"]["hash"]}
    assert [(made.folder / line["file"]).stat().st_size for line in lines] == [line["bytes"] for line in lines]


@pytest.mark.parametrize("size", [1, 3, 20, 100])
def test_batches_hold_every_picture_once_with_its_pixels(made: ImageFolder, size: int) -> None:
    seen = []
    for pictures, images in made.batches(size):
        assert len(pictures) == len(images) <= size
        for picture, image in zip(pictures, images, strict=True):
            expected = np.random.default_rng(picture.seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            assert np.array_equal(np.asarray(image), expected)
            seen.append(picture)
    assert seen == list(made.pictures)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("spoil", [cut, flip, Path.unlink])
def test_a_damaged_or_missing_image_is_named(copy: Path, made: ImageFolder, spoil: Callable[[Path], None]) -> None:
    spoil(copy / "images" / "003_1.png")
    problem = refused(copy)
    assert "1 of 20 images are missing or damaged: images/003_1.png; run the same `erase generate`" in problem
    rows = rows_of(10, group="target", concepts={"object": "star"})
    assert len(list_folder(copy, made.header, rows, verify=False).pictures) == 20


def test_of_many_bad_images_some_are_named_and_all_counted(copy: Path) -> None:
    for k in range(2):
        for row in range(4):
            flip(copy / "images" / f"00{row}_{k}.png")
    assert "8 of 20 images are missing or damaged: images/000_0.png" in refused(copy)
    assert "and 3 more" in refused(copy)


def test_an_unfinished_folder_says_how_much_there_is(copy: Path) -> None:
    (copy / "manifest.jsonl").unlink()
    (copy / "parts").mkdir()
    (copy / "parts" / "00000.jsonl").write_text('{"file": "images/000_0.png", "bytes": 1, "sha256": "x"}\n{"file": "im')
    assert "is not complete: 1 of 20 images are there; run the same" in refused(copy)


def shorter(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def swapped(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[2], *lines[1:2], lines[0], *lines[3:]]))


@pytest.mark.parametrize("spoil", [cut, shorter, swapped])
def test_a_manifest_that_is_not_the_sets_is_refused(copy: Path, spoil: Callable[[Path], None]) -> None:
    spoil(copy / "manifest.jsonl")
    assert "manifest.jsonl is damaged" in refused(copy)


def test_a_set_that_was_changed_is_refused(copy: Path) -> None:
    file = copy / "prompts.csv"
    file.write_text(file.read_text().replace("a ring", "a moon"))
    assert "is not the set that generation.json names: it was changed" in refused(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}'])
def test_a_header_that_is_damaged_or_of_another_format_is_refused(copy: Path, text: str) -> None:
    (copy / "generation.json").write_text(text)
    assert "generation.json is" in refused(copy)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    assert "is no folder of images: it has no generation.json" in refused(tmp_path)


def test_a_picture_that_goes_bad_while_it_is_read_is_named(copy: Path) -> None:
    folder = open_folder(copy)
    cut(copy / "images" / "000_0.png")
    with pytest.raises(UserError, match=r"000_0.png cannot be read: .*run the same"):
        list(folder.batches(4))
