"""Folders through metrics: each image its own value, nothing measured twice, pairs that are pairs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from erase.errors import UserError
from erase.evaluation.metrics import FID, KID, ClipDistance, ClipScore, ConceptClassifier, PixelDistance, ZeroShot
from erase.evaluation.metrics.features import ClipFeatures
from erase.evaluation.metrics.runner import collect_features, hash_prompts, measure_distance, score_folder, score_pairs
from erase.generation.folder import ImageFolder, Picture
from tests.unit.evaluation.metrics.material import OBJECTS, Drawn, TinyFolder, save_folder

SCORE = ClipScore(model="shapes")


@pytest.fixture
def folder(tmp_path: Path) -> TinyFolder:
    return save_folder(tmp_path / "base", 25)


@pytest.fixture
def other(tmp_path: Path) -> TinyFolder:
    return save_folder(tmp_path / "erased", 25, seed=1)


def test_each_image_has_its_own_value_whatever_the_batch_size(folder: TinyFolder, tmp_path: Path) -> None:
    (_, images), *_ = folder.batches(25)
    table = score_folder(SCORE, folder, tmp_path / "a.parquet", batch_size=7)
    assert table.column("clip_score") == pytest.approx(SCORE(images, folder.pictures)["clip_score"], abs=1e-3)
    assert table.column("case_number") == [picture.case_number for picture in folder.pictures]
    whole = score_folder(SCORE, folder, tmp_path / "b.parquet", batch_size=64)
    assert table.column("clip_score") == pytest.approx(whole.column("clip_score"), abs=1e-3)


def test_what_was_measured_is_not_measured_again(folder: TinyFolder, tmp_path: Path) -> None:
    file = tmp_path / "scores.parquet"
    first = score_folder(SCORE, folder, file)
    assert folder.read == 25
    assert score_folder(SCORE, folder, file) == first
    assert folder.read == 25


@pytest.mark.parametrize("what", ["scale", "image", "prompt"])
def test_another_scale_image_or_prompt_is_measured_anew(folder: TinyFolder, tmp_path: Path, what: str) -> None:
    file, metric = tmp_path / "scores.parquet", SCORE
    first = score_folder(metric, folder, file)
    if what == "scale":
        metric = ClipScore(model="shapes", scale="cosine")
    else:
        first_one = folder.pictures[0]
        new = replace(first_one, sha256="x") if what == "image" else replace(first_one, prompt="another")
        folder.pictures = [new, *folder.pictures[1:]]
    again = score_folder(metric, folder, file)
    assert folder.read == 50
    assert again != first


def test_the_identity_holds_the_metric_and_the_prompts(folder: TinyFolder, tmp_path: Path) -> None:
    table = score_folder(ConceptClassifier(), folder, tmp_path / "c.parquet")
    assert table.identity["prompts_sha256"] == hash_prompts(folder.pictures)
    assert table.identity["weights_sha256"] == ConceptClassifier().identity()["weights_sha256"]
    right = [seen == p.concepts["object"] for seen, p in zip(table.column("seen/object"), folder.pictures, strict=True)]
    assert sum(right) >= 24


def test_pairs_are_compared_image_by_image(folder: TinyFolder, other: TinyFolder, tmp_path: Path) -> None:
    same = score_pairs(PixelDistance(), folder, folder, tmp_path / "same.parquet", batch_size=4)
    moved = score_pairs(PixelDistance(), folder, other, tmp_path / "moved.parquet", batch_size=4)
    assert same.column("mean_absolute_difference") == [0] * 25
    assert min(moved.column("mean_absolute_difference")) > 0
    assert moved.hashes[3] == f"{folder.pictures[3].sha256} {other.pictures[3].sha256}"
    read = folder.read
    assert score_pairs(PixelDistance(), folder, other, tmp_path / "moved.parquet") == moved
    assert folder.read == read
    clip = score_pairs(ClipDistance(model="shapes"), folder, other, tmp_path / "clip.parquet")
    assert all(0 <= value <= 2 for value in clip.column("clip_distance"))


@pytest.mark.parametrize("change", [{"seed": 99}, {"prompt": "x"}, {"case_number": "x"}, {"concepts": {}}])
def test_folders_of_other_prompts_or_seeds_are_no_pairs(
    folder: TinyFolder, other: TinyFolder, tmp_path: Path, change: dict[str, Any]
) -> None:
    other.pictures = [replace(other.pictures[0], **change), *other.pictures[1:]]
    with pytest.raises(UserError, match=r"pairs: 00000_0 before, .* make both from one prompt set"):
        score_pairs(PixelDistance(), folder, other, tmp_path / "x.parquet")
    other.pictures = other.pictures[1:]
    with pytest.raises(UserError, match="25 images before and 24 after"):
        score_pairs(PixelDistance(), folder, other, tmp_path / "x.parquet")


def test_an_empty_folder_and_a_metric_that_loses_an_image_are_errors(folder: TinyFolder, tmp_path: Path) -> None:
    @dataclass
    class Forgetful:
        name: str = "forgetful"

        def identity(self) -> dict[str, Any]:
            return {}

        def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Any]) -> dict[str, list[Any]]:
            return {"value": [0] * (len(images) - 1)}

        def check(self, pictures: Sequence[Any]) -> None:
            """Any prompts will do."""

    with pytest.raises(UserError, match="forgetful: 24 values of value for 25 images"):
        score_folder(Forgetful(), folder, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()
    with pytest.raises(UserError, match="clip_score: the folder holds no images"):
        score_folder(SCORE, TinyFolder(tmp_path, []), tmp_path / "x.parquet")


def test_prompts_that_a_metric_cannot_judge_are_refused_before_the_first_image(
    folder: TinyFolder, tmp_path: Path
) -> None:
    metrics = (ConceptClassifier(), ZeroShot(model="shapes", concepts={"object": OBJECTS}))
    last = replace(folder.pictures[-1], concepts={"object": "hexagon"})
    for metric in metrics:
        unknown = TinyFolder(folder.folder, [*folder.pictures[:-1], last])
        with pytest.raises(UserError, match="ask for the object 'hexagon'"):
            score_folder(metric, unknown, tmp_path / "x.parquet")
        nothing = TinyFolder(folder.folder, [replace(picture, concepts={}) for picture in folder.pictures])
        with pytest.raises(UserError, match="but the prompts ask for concepts in no domain"):
            score_folder(metric, nothing, tmp_path / "x.parquet")
        assert unknown.read == nothing.read == 0


def test_features_are_extracted_once_for_every_distance(folder: TinyFolder, other: TinyFolder, tmp_path: Path) -> None:
    shapes, stores = ClipFeatures(model="shapes"), (tmp_path / "features" / "a", tmp_path / "features" / "b")
    found = measure_distance(KID(features=shapes), folder, other, stores)
    assert folder.read == other.read == 25
    with pytest.raises(UserError, match="fid: 25 images are too few: 73 are needed"):
        measure_distance(FID(features=shapes), folder, other, stores)
    assert measure_distance(KID(features=shapes), folder, other, stores) == found
    assert folder.read == other.read == 25
    measure_distance(KID(features=ClipFeatures(model="shapes", normalize=True)), folder, other, stores)
    assert folder.read == 50  # other features


def test_a_paired_distance_of_a_folder_and_itself_is_zero(
    folder: TinyFolder, other: TinyFolder, tmp_path: Path
) -> None:
    metric, stores = KID(features=ClipFeatures(model="shapes")), (tmp_path / "a", tmp_path / "b")
    assert measure_distance(metric, folder, folder, stores, paired=True).estimate == pytest.approx(0, abs=1e-12)
    assert measure_distance(metric, folder, folder, stores).estimate < 0
    other.pictures = [replace(other.pictures[0], seed=99), *other.pictures[1:]]
    with pytest.raises(UserError, match="make both from one prompt set"):
        measure_distance(metric, folder, other, stores, paired=True)


def test_stored_features_are_the_extractors(folder: TinyFolder, tmp_path: Path) -> None:
    (_, images), *_ = folder.batches(25)
    shapes = ClipFeatures(model="shapes")
    found = collect_features(shapes, folder, tmp_path / "f", batch_size=4)
    assert found.dtype == torch.float32
    assert torch.allclose(found, shapes(images), atol=1e-5)
    folder.pictures = [replace(folder.pictures[0], sha256="x"), *folder.pictures[1:]]
    folder.read = 0
    collect_features(shapes, folder, tmp_path / "f")
    assert folder.read == 25


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Only the columns do: some hundred bytes an image."""

    @dataclass
    class Endless:
        pictures: Sequence[Drawn]

        def batches(self, size: int) -> Iterator[tuple[Sequence[Drawn], list[Image.Image]]]:
            for start in range(0, len(self.pictures), size):
                chunk = self.pictures[start : start + size]
                yield chunk, [Image.fromarray(np.full((64, 64, 3), start % 255, np.uint8)) for _ in chunk]

    @dataclass
    class Mean:
        name: str = "mean"

        def identity(self) -> dict[str, Any]:
            return {}

        def __call__(self, images: Sequence[Image.Image], pictures: Sequence[Any]) -> dict[str, list[Any]]:
            return {"mean": [float(np.asarray(image).mean()) for image in images]}

        def check(self, pictures: Sequence[Any]) -> None:
            """Any prompts will do."""

    folder = Endless([Drawn("p", {}, "", i, f"{i}", 0, f"{i:064d}") for i in range(6000)])
    tracemalloc.start()
    try:
        score_folder(Mean(), folder, tmp_path / "m.parquet")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12e6, "the images together are 74 MB"


def test_an_image_folder_of_the_generator_is_a_folder(folder: TinyFolder, tmp_path: Path) -> None:
    pictures = [
        Picture(p.case_number, p.k, p.prompt, p.seed, p.group, p.concepts, folder.file_of(p), p.sha256)
        for p in folder.pictures
    ]
    one = score_folder(SCORE, folder, tmp_path / "one.parquet")
    assert score_folder(SCORE, ImageFolder(folder.folder, {}, pictures), tmp_path / "two.parquet") == one
