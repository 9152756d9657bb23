"""Labelled pictures of the Hugging Face Hub, or of a local folder that `datasets` can read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.classification.augmentation import Augment
from erase.classification.data.pictures import read_pictures
from erase.classification.data.source import Source
from erase.classification.images import Images
from erase.components import STRICT
from erase.errors import UserError

TEST_SPLITS = ("test", "valid", "validation")
"""Where a data set says no more: the first of these that it has is tested on."""


@plain_dataclass(frozen=True)
class Known:
    """Where a data set with a short name is, and what is in it."""

    id: str
    image: str | None
    label: str | None
    classes: int | None = None
    config: str | None = None
    test_split: str = "test"


ALIASES: dict[str, Known] = {
    "cifar10": Known("uoft-cs/cifar10", image="img", label="label", classes=10),
    "cifar100": Known("uoft-cs/cifar100", image="img", label="fine_label", classes=100),
    "svhn": Known("ufldl-stanford/svhn", image="image", label="label", classes=10, config="cropped_digits"),
    "tiny_imagenet": Known("zh-plus/tiny-imagenet", image="image", label="label", classes=200, test_split="valid"),
}


@dataclass(frozen=True, config=STRICT, kw_only=True)
class HubImages:
    """Read by Hugging Face `datasets`, as RGB. Its test split is tested on, or else a share of its train split."""

    name: Literal["hub"] = "hub"
    dataset: str
    """`cifar10`, `cifar100`, `svhn`, `tiny_imagenet`, any id of the Hub, or a local folder"""
    revision: str | None = None
    """branch, tag or commit of a Hub id"""
    config: str | None = None
    """configuration of the data set, where it has several"""
    image: str | None = None
    """column of the pictures; default: known of the short names, else the only column of pictures"""
    label: str | None = None
    """column of the labels; default: known of the short names, else the only column of class labels"""
    train_split: str = "train"
    """split to learn from"""
    test_split: str | None = None
    """split to test on, of other pictures; default: `test`, `valid` or `validation`, the first that there is"""
    size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """pixels a side to scale to; default: as they are, all of one size"""
    augment: Augment = "none"
    """what is done to each picture of a training batch: `shift`, by up to an eighth of a side; `shift_and_mirror`, as
    CIFAR is trained, mirrors half of them too. Masks, starts and tests see them as they are"""

    def load(self, seed: int) -> Source:
        """``[n, 3, h, w]``; a sample's id is its split and its row."""
        known = ALIASES.get(self.dataset)
        train, classes = self._read(self.train_split, known, None)
        if known and self.label in (None, known.label) and len(classes) != known.classes:
            raise UserError(f"data.dataset: {known.id} should have {known.classes} classes; found {len(classes)}")
        test_split = self.test_split or (known.test_split if known else self._find_test())
        test = None if test_split is None else self._read(test_split, known, classes)[0]
        return Source(train, test, classes, self.augment)

    def _find_test(self) -> str | None:
        from datasets import get_dataset_split_names

        names = self._ask(get_dataset_split_names, self.dataset, self.config)
        return next((name for name in TEST_SPLITS if name in names and name != self.train_split), None)

    def _ask(self, function: Any, *arguments: str | None, **options: str) -> Any:
        from datasets.exceptions import DatasetsError

        if self.revision is not None and os.path.isdir(self.dataset):
            raise UserError(f"data.revision: {self.dataset} is no Hub id, so it has none; leave it out")
        try:
            return function(*arguments, revision=self.revision, **options)
        except (OSError, ValueError, DatasetsError) as error:
            reason = error.__cause__ or error
            raise UserError(f"data.dataset: {self.dataset} cannot be loaded: {reason}") from None

    def _read(self, split: str, known: Known | None, classes: Sequence[str] | None) -> tuple[Images, tuple[str, ...]]:
        import datasets

        here = known or Known(self.dataset, image=None, label=None)
        data = self._ask(datasets.load_dataset, here.id, self.config or here.config, split=split)
        image = self._column(data, self.image or here.image, "image", datasets.Image)
        label = self._column(data, self.label or here.label, "label", datasets.ClassLabel)
        ids = [f"{split}-{row:06d}" for row in range(len(data))]
        try:
            rows = data.cast_column(image, datasets.Image(decode=False))[image]
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise UserError(f"data.image: column {image!r} of {self.dataset} holds no pictures: {error}") from None
        absent = [name for name, row in zip(ids, rows, strict=True) if row is None]
        if absent:
            raise UserError(f"data.dataset: {self.dataset} has {len(absent)} rows without a picture, first {absent[0]}")
        pixels, _ = read_pictures(zip(ids, _files(rows), strict=True), self.size, "data.dataset")
        labels, names = _labels(data[label], data.features[label], classes, ids)
        return Images(pixels, labels, tuple(ids)), names

    def _column(self, data: Any, wanted: str | None, field: str, kind: type) -> str:
        columns = ", ".join(data.column_names)
        if wanted is not None:
            if wanted not in data.column_names:
                raise UserError(f"data.{field}: {self.dataset} has no column {wanted!r}; it has {columns}")
            return wanted
        fitting = [name for name, feature in data.features.items() if isinstance(feature, kind)]
        if len(fitting) != 1:
            raise UserError(
                f"data.{field}: which column of {self.dataset}? {len(fitting)} of {columns} hold a {kind.__name__}; "
                "name one"
            )
        return fitting[0]


def _files(rows: Sequence[dict[str, Any]]) -> Iterator[Path | IO[bytes]]:
    for row in rows:
        yield io.BytesIO(row["bytes"]) if row["bytes"] is not None else Path(row["path"])


def _labels(
    values: Sequence[Any], feature: Any, classes: Sequence[str] | None, ids: Sequence[str]
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Numbers of the classes, and their names: the feature's own, or the values themselves in their order."""
    values = list(values)
    if getattr(feature, "names", None):
        return torch.tensor([-1 if value is None else value for value in values]), tuple(feature.names)
    missing = [name for name, value in zip(ids, values, strict=True) if not isinstance(value, int | str)]
    if missing:
        raise UserError(f"data.label: {missing[0]} has no label that is a whole number or a word")
    names = tuple(str(value) for value in sorted(set(values))) if classes is None else tuple(classes)
    number = {name: place for place, name in enumerate(names)}
    for name, value in zip(ids, values, strict=True):
        if str(value) not in number:
            raise UserError(f"data.label: {name} is of the class {value!r}, which nothing is trained on")
    return torch.tensor([number[str(value)] for value in values]), names
