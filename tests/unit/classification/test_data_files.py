"""Folders of pictures, and data sets that Hugging Face `datasets` reads from a local folder in place of the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from erase.classification.data import Folder, HubImages
from erase.classification.data.hub import ALIASES, Known
from erase.errors import UserError
from tests.unit.classification.pictures import PETS, noise, pets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pets(tmp_path / "pets")


def test_a_folder_gives_the_pictures_and_labels_that_torchvision_gives(folder: Path) -> None:
    source, judge = Folder(path=folder, size=8).load(0), ImageFolder(str(folder))
    assert source.classes == ("cat", "dog")
    assert source.images.ids == PETS
    assert source.images.labels.tolist() == judge.targets
    for pixels, (picture, _) in zip(source.images.pixels, judge, strict=True):
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(picture))


def test_a_second_folder_is_tested_on(folder: Path, tmp_path: Path) -> None:
    others = pets(tmp_path / "others", first=5)
    source, judge = Folder(path=folder, test=others, size=8).load(0), Folder(path=others, size=8).load(0)
    assert source.test is not None
    assert source.test.ids[0] == "test:cat/a.png"
    assert torch.equal(source.test.pixels, judge.images.pixels)


def test_a_folder_is_not_tested_on_itself_or_a_copy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match=r"data.test: .*link is data.path; give other pictures"):
        Folder(path=folder, test=tmp_path / "link", size=8).load(0)
    copy = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(UserError, match=r"5 of 5 pictures to test on are, pixel by pixel, .* first test:cat/a.png"):
        Folder(path=folder, test=copy, size=8).load(0)


def test_slices_of_one_split_that_overlap_are_refused(tmp_path: Path, cache: None) -> None:
    name = str(parquet(tmp_path / "set", "train", [0, 1, 2] * 4, NAMES))
    apart = HubImages(dataset=name, train_split="train[:50%]", test_split="train[50%:]").load(0)
    assert apart.test is not None and len(apart.test) == 6
    with pytest.raises(UserError, match=r"2 of 8 pictures to test on are, pixel by pixel, .*; at most 10% may be"):
        HubImages(dataset=name, train_split="train[:6]", test_split="train[4:]").load(0)


def test_a_second_folder_with_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "cow"):
        (tmp_path / "others" / name).mkdir(parents=True)
        noise(0).save(tmp_path / "others" / name / "a.png")
    with pytest.raises(UserError, match=r"data.test: .* not in both: cow"):
        Folder(path=folder, test=tmp_path / "others", size=8).load(0)


def test_pictures_are_scaled_with_their_proportions_and_cropped_at_the_center(folder: Path) -> None:
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 200
    Image.fromarray(wide).save(folder / "cat" / "a.png")
    first = Folder(path=folder, size=8).load(0).images.pixels[0]
    assert first[:, :, 1:-1].unique().tolist() == [200]


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def test_damaged_pictures_are_all_named_and_refused(folder: Path) -> None:
    damage(folder / "cat" / "b.png")
    (folder / "dog" / "a.png").write_bytes(b"")
    with pytest.raises(UserError) as refused:
        Folder(path=folder, size=8).load(0)
    first, second, remedy = refused.value.problems
    assert first.startswith("data.path: cat/b.png cannot be read as a picture:")
    assert second.startswith("data.path: dog/a.png cannot be read as a picture:")
    assert remedy == "data.skip_damaged: true leaves damaged pictures out"


def test_damaged_pictures_are_left_out_only_if_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder / "cat" / "b.png")
    images = Folder(path=folder, size=8, skip_damaged=True).load(0).images
    left_out, which, *more = capsys.readouterr().err.splitlines()
    assert left_out == "data.path: 1 of 5 files are left out" and not more
    assert which.startswith("data.path: cat/b.png cannot be read as a picture:")
    assert images.ids == ("cat/a.png", "dog/a.png", "dog/b.png", "dog/deep/c.png")
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert np.array_equal(images.pixels[1].permute(1, 2, 0).numpy(), np.asarray(noise(2)))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pictures_of_more_than_8_bits_are_refused_and_not_made_white(folder: Path, kind: Any) -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 64).reshape(8, 8).astype(kind))
    deep.save(folder / "cat" / "c.tiff")
    wrong = rf"data.path: cat/c.tiff cannot .*: its mode is {deep.mode}, more than 8 bits a channel; save it with 8"
    with pytest.raises(UserError, match=wrong):
        Folder(path=folder, size=8).load(0)


def test_only_ten_damaged_pictures_are_listed(folder: Path) -> None:
    for place in range(13):
        (folder / "cat" / f"x{place:02d}.png").write_bytes(b"no")
    with pytest.raises(UserError, match="and 3 more") as refused:
        Folder(path=folder, size=8).load(0)
    assert len(refused.value.problems) == 12


def test_a_folder_without_readable_pictures_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path: .*nowhere is no folder of class folders"):
        Folder(path=tmp_path / "nowhere", size=8).load(0)
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="is no folder of class folders"):
        Folder(path=tmp_path / "empty", size=8).load(0)
    for file in folder.rglob("*.png"):
        damage(file)
    with pytest.raises(UserError, match="holds no picture that can be read"):
        Folder(path=folder, size=8, skip_damaged=True).load(0)


def test_short_names_stand_for_these_data_sets() -> None:
    expected = {
        "cifar10": Known("uoft-cs/cifar10", "img", "label", 10, None, "test"),
        "cifar100": Known("uoft-cs/cifar100", "img", "fine_label", 100, None, "test"),
        "svhn": Known("ufldl-stanford/svhn", "image", "label", 10, "cropped_digits", "test"),
        "tiny_imagenet": Known("zh-plus/tiny-imagenet", "image", "label", 200, None, "valid"),
    }
    assert expected == ALIASES


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def write(folder: Path, split: str, columns: Mapping[str, Any], features: dict[str, Any]) -> None:
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def parquet(folder: Path, split: str, labels: list[Any], label: Any, **others: Any) -> Path:
    """A data set as the Hub stores CIFAR: pictures in `img`, labels in `label`; no split shares a picture."""
    first = 0 if split == "train" else 1000
    columns = {"img": [noise(first + place) for place in range(len(labels))], "label": labels}
    write(folder, split, columns, {"img": datasets.Image(), "label": label, **others})
    return folder


NAMES = datasets.ClassLabel(names=["plane", "car", "bird"])


@pytest.mark.parametrize("split", ["test", "valid", "validation"])
def test_a_data_set_is_read_with_its_test_split(tmp_path: Path, cache: None, split: str) -> None:
    parquet(tmp_path / "set", "train", [2, 0, 1, 1], NAMES)
    source = HubImages(dataset=str(parquet(tmp_path / "set", split, [1, 2], NAMES))).load(0)
    assert source.classes == ("plane", "car", "bird")
    assert source.images.labels.tolist() == [2, 0, 1, 1]
    assert source.images.ids == ("train-000000", "train-000001", "train-000002", "train-000003")
    for place, pixels in enumerate(source.images.pixels):
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(noise(place)))
    assert source.test is not None
    assert source.test.labels.tolist() == [1, 2]
    assert source.test.ids[1].endswith("-000001")


def test_a_data_set_without_a_test_split_leaves_the_test_part_to_the_splits(tmp_path: Path, cache: None) -> None:
    assert HubImages(dataset=str(parquet(tmp_path / "set", "train", [0, 1, 2], NAMES))).load(0).test is None


def test_a_folder_of_pictures_is_a_data_set_too(folder: Path, cache: None) -> None:
    shutil.rmtree(folder / "dog" / "deep")  # `datasets` reads labels only where all pictures are equally deep
    source = HubImages(dataset=str(folder)).load(0)
    assert source.classes == ("cat", "dog")
    assert torch.bincount(source.images.labels).tolist() == [2, 2]


def test_columns_can_be_named(tmp_path: Path, cache: None) -> None:
    columns = {"a": [noise(0), noise(1)], "b": [noise(2), noise(3)], "fine": [0, 1], "coarse": [1, 0]}
    kinds = {"a": datasets.Image(), "b": datasets.Image(), "fine": NAMES, "coarse": NAMES}
    write(tmp_path / "set", "train", columns, kinds)
    name = str(tmp_path / "set")
    source = HubImages(dataset=name, image="b", label="coarse").load(0)
    assert source.images.labels.tolist() == [1, 0]
    assert np.array_equal(source.images.pixels[0].permute(1, 2, 0).numpy(), np.asarray(noise(2)))
    with pytest.raises(UserError, match=r"data.image: which column .* 2 of a, b, fine, coarse hold a Image; name one"):
        HubImages(dataset=name).load(0)
    with pytest.raises(UserError, match=r"data.label: .* has no column 'rough'; it has a, b, fine, coarse"):
        HubImages(dataset=name, image="a", label="rough").load(0)


def test_another_label_column_of_a_short_name_has_classes_of_its_own(
    tmp_path: Path, cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR-100 has 20 coarse labels, too; only of its fine ones there must be 100."""
    columns = {"img": [noise(0), noise(1)], "fine_label": [0, 1], "coarse_label": [1, 0]}
    kinds = {"img": datasets.Image(), "fine_label": NAMES, "coarse_label": NAMES}
    for split in ("train", "test"):
        write(tmp_path / "set", split, columns, kinds)
        columns = {**columns, "img": [noise(2), noise(3)]}
    name = str(tmp_path / "set")
    monkeypatch.setitem(ALIASES, "cifar100", replace(ALIASES["cifar100"], id=name))
    assert len(HubImages(dataset="cifar100", label="coarse_label").load(0).classes) == 3
    with pytest.raises(UserError, match="should have 100 classes; found 3"):
        HubImages(dataset="cifar100", label="fine_label").load(0)


@pytest.mark.parametrize(
    ("values", "kind", "classes", "numbers"),
    [
        ([10, 2, 10], datasets.Value("int64"), ("2", "10"), [1, 0, 1]),
        (["dog", "cat", "dog"], datasets.Value("string"), ("cat", "dog"), [1, 0, 1]),
    ],
)
def test_labels_without_class_names_are_called_by_their_values(
    tmp_path: Path, cache: None, values: list[Any], kind: Any, classes: tuple[str, ...], numbers: list[int]
) -> None:
    source = HubImages(dataset=str(parquet(tmp_path / "set", "train", values, kind)), label="label").load(0)
    assert (source.classes, source.images.labels.tolist()) == (classes, numbers)


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path, cache: None) -> None:
    parquet(tmp_path / "set", "train", ["a", "b"], datasets.Value("string"))
    parquet(tmp_path / "set", "test", ["c"], datasets.Value("string"))
    with pytest.raises(UserError, match="test-000000 is of the class 'c', which nothing is trained on"):
        HubImages(dataset=str(tmp_path / "set"), label="label").load(0)


@pytest.mark.parametrize("kind", [NAMES, datasets.Value("string")])
def test_a_sample_without_a_label_is_refused_by_name(tmp_path: Path, cache: None, kind: Any) -> None:
    words = [0, None] if kind is NAMES else ["a", None]
    with pytest.raises(UserError, match="train-000001 has"):
        HubImages(dataset=str(parquet(tmp_path / "set", "train", words, kind)), label="label").load(0)


def test_pictures_of_several_sizes_need_one_to_be_given(tmp_path: Path, cache: None) -> None:
    columns = {"img": [noise(0), noise(1, width=12)], "label": [0, 1]}
    write(tmp_path / "set", "train", columns, {"img": datasets.Image(), "label": NAMES})
    with pytest.raises(UserError, match="train-000000 is 8 x 8 pixels and train-000001 12 x 8; give a `size`"):
        HubImages(dataset=str(tmp_path / "set")).load(0)
    assert HubImages(dataset=str(tmp_path / "set"), size=8).load(0).images.pixels.shape == (2, 3, 8, 8)


def test_a_damaged_picture_is_named_by_its_row(tmp_path: Path, cache: None) -> None:
    columns = {"img": [noise(0), {"bytes": b"no picture", "path": None}], "label": [0, 1]}
    write(tmp_path / "set", "train", columns, {"img": datasets.Image(), "label": NAMES})
    with pytest.raises(UserError, match=r"data.dataset: train-000001 cannot be read as a picture"):
        HubImages(dataset=str(tmp_path / "set")).load(0)


def test_what_cannot_be_loaded_is_refused_with_the_reason(tmp_path: Path, cache: None) -> None:
    with pytest.raises(UserError, match=r"data.dataset: cifar10 cannot be loaded: .*uoft-cs/cifar10"):
        HubImages(dataset="cifar10").load(0)
    name = str(parquet(tmp_path / "set", "train", [0, 1], NAMES))
    with pytest.raises(UserError, match=r"cannot be loaded: .*lern"):
        HubImages(dataset=name, train_split="lern").load(0)
    with pytest.raises(UserError, match=r"data.revision: .* is no Hub id"):
        HubImages(dataset=name, revision="main").load(0)
