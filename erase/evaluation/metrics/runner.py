"""Folders of images through metrics, in batches; what was measured of the same images is not measured again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from erase.errors import UserError
from erase.evaluation.intervals import Interval
from erase.evaluation.metrics.protocols import Columns, Folder, Metric, PairMetric, SetMetric, Shown
from erase.evaluation.metrics.store import ScoreTable, load_scores, write_scores
from erase.provenance import hash_json, new_folder, write_json

BATCH = 64
"""Images that a metric looks at together."""
FEATURES, IDENTITY = "features.npy", "identity.json"


def score_folder(metric: Metric, folder: Folder, file: Path, batch_size: int = BATCH) -> ScoreTable:
    """The metric's values for each image, written to ``file``, or read from it if they are of these images."""
    pictures = _pictures(folder, metric.name)
    metric.check(pictures)
    identity = {**metric.identity(), "prompts_sha256": hash_prompts(pictures)}

    def measure() -> Iterable[Columns]:
        for shown, images in folder.batches(batch_size):
            yield metric(images, shown)

    return _table(metric.name, identity, pictures, [p.sha256 for p in pictures], measure, file)


def score_pairs(metric: PairMetric, before: Folder, after: Folder, file: Path, batch_size: int = BATCH) -> ScoreTable:
    """The distance of each image before to the one after, of one prompt and seed."""
    pictures = check_paired(before, after)
    identity = {**metric.identity(), "prompts_sha256": hash_prompts(pictures)}
    hashes = [f"{one.sha256} {other.sha256}" for one, other in zip(pictures, after.pictures, strict=True)]

    def measure() -> Iterable[Columns]:
        for (_, then), (_, now) in zip(before.batches(batch_size), after.batches(batch_size), strict=True):
            yield metric(then, now)

    return _table(metric.name, identity, pictures, hashes, measure, file)


def measure_distance(
    metric: SetMetric, before: Folder, after: Folder, stores: tuple[Path, Path], paired: bool = False
) -> Interval:
    """The distance between two sets; their features are kept in ``stores``, a folder each, for other metrics.

    ``paired``: both are of the same prompts and seeds, in the same order; else it is refused.
    """
    clusters = [picture.case_number for picture in check_paired(before, after)] if paired else None
    then, now = (
        collect_features(metric.features, folder, store) for folder, store in zip((before, after), stores, strict=True)
    )
    return metric.distance(then, now, paired=paired, clusters=clusters)


def collect_features(extractor: Any, folder: Folder, store: Path, batch_size: int = BATCH) -> Tensor:
    """``[n, d]`` features, float32, read from the disk as they are needed."""
    pictures = _pictures(folder, "features")
    identity = {**extractor.identity(), "images_sha256": hash_json([picture.sha256 for picture in pictures])}
    if not _is_stored(store, identity):
        store.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(store) as place:
            _extract(extractor, folder, place / FEATURES, len(pictures), batch_size)
            write_json(place / IDENTITY, identity)
    return torch.from_numpy(np.load(store / FEATURES, mmap_mode="c", allow_pickle=False))


def _is_stored(store: Path, identity: dict[str, Any]) -> bool:
    try:
        found = json.loads((store / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == json.loads(json.dumps(identity)) and (store / FEATURES).is_file()


def _extract(extractor: Any, folder: Folder, file: Path, count: int, batch_size: int) -> None:
    stored, done = None, 0
    for _, images in tqdm(folder.batches(batch_size), desc="features", total=-(-count // batch_size)):
        found = extractor(images).float().numpy()
        if stored is None:
            stored = np.lib.format.open_memmap(file, "w+", np.float32, (count, found.shape[1]))
        stored[done : done + len(found)] = found
        done += len(found)
    if stored is None or done != count:
        raise UserError(f"features: the folder lists {count} images and gave {done}")
    stored.flush()


def check_paired(before: Folder, after: Folder) -> Sequence[Shown]:
    """Refuses two folders that are not of the same prompts and seeds in the same order."""
    then, now = _pictures(before, "pairs"), _pictures(after, "pairs")
    if len(then) != len(now):
        raise UserError(f"pairs: {len(then)} images before and {len(now)} after; make both from one prompt set")
    for one, other in zip(then, now, strict=True):
        if _asked(one) != _asked(other):
            place = f"{one.case_number}_{one.k} before, {other.case_number}_{other.k} after"
            raise UserError(f"pairs: {place}: prompt, seed or number differ; make both from one prompt set")
    return then


def hash_prompts(pictures: Sequence[Shown]) -> str:
    """SHA-256 over what was asked for, image by image."""
    return hash_json([_asked(picture) for picture in pictures])


def _asked(picture: Shown) -> list[Any]:
    concepts = dict(picture.concepts)
    return [picture.case_number, picture.k, picture.prompt, picture.seed, picture.group, concepts]


def _pictures(folder: Folder, what: str) -> Sequence[Shown]:
    if not folder.pictures:
        raise UserError(f"{what}: the folder holds no images; add prompts")
    return folder.pictures


def _table(
    name: str,
    identity: dict[str, Any],
    pictures: Sequence[Shown],
    hashes: Sequence[str],
    measure: Callable[[], Iterable[Columns]],
    file: Path,
) -> ScoreTable:
    """The stored table if it is of these images, else a new one."""
    if found := load_scores(file, identity, hashes):
        return found
    columns: Columns = {}
    with tqdm(total=len(pictures), desc=name) as bar:
        for part in measure():
            for key, values in part.items():
                columns.setdefault(key, []).extend(values)
            bar.update(len(next(iter(part.values()))))
    keys: Columns = {
        "case_number": [p.case_number for p in pictures],
        "k": [p.k for p in pictures],
        "sha256": list(hashes),
    }
    wrong = [key for key, values in columns.items() if len(values) != len(pictures)]
    if wrong:
        raise UserError(f"{name}: {len(columns[wrong[0]])} values of {wrong[0]} for {len(pictures)} images")
    table = ScoreTable(name, json.loads(json.dumps(identity)), {**keys, **columns})
    write_scores(file, table)
    return table
