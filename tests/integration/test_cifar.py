"""CIFAR-10 at full size, for who has the data: each configuration, on a data set of its shape that is drawn here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from erase.classification.data.hub import ALIASES
from erase.classification.models import load_classifier, make_model
from erase.classification.splits import make_splits
from erase.config import load
from erase.train import main
from erase.training.step_log import read_log
from erase.training.unlearning_settings import UnlearningRun
from erase.updates import AlternatingSteps
from pipelines import unlearn_class
from tests.integration.test_configs import header
from tests.launch import ROOT

FOLDER = ROOT / "configs" / "classification"
FILES = sorted(FOLDER.glob("cifar10_random10*.yaml"))
MAIN = FOLDER / "cifar10_random10.yaml"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN, FORGET, RETAIN = 45_000, 4_500, 40_500
"""Samples of SalUn's protocol: 50,000 less a tenth for validation, and a tenth of the rest to forget."""
EPOCHS: dict[str, tuple[int, int]] = {
    "retrain": (160, RETAIN),
    "finetune": (10, RETAIN),
    "l1_sparse": (10, RETAIN),
    "scissorhands": (10, RETAIN),
    "gradient_ascent": (5, FORGET),
    "boundary_expand": (10, FORGET),
    "boundary_shrink": (10, FORGET),
    "munba": (10, FORGET),
    "neggrad_plus": (10, FORGET),
    "bad_teacher": (10, TRAIN),
}
"""Lengths by method: so many passes over so many samples."""
TURNS = {
    "random_label": (10 * FORGET, 10 * RETAIN),
    "salun": (10 * FORGET, 10 * RETAIN),
    "scrub": (2 * FORGET, 6 * RETAIN),
    "sfron": (300 * 128, 1500 * 128),
}
"""Samples that the forget and the retain steps of a method see, where it takes turns."""
SMALL = {
    "model.source": "timm",
    "model.architecture": "test_resnet",
    "model.stem": "standard",
    "original.max_train_steps": 1,
    "original.train_batch_size": 16,
    "train_batch_size": 8,
}


def method(file: Path) -> str:
    return file.stem.removeprefix("cifar10_random10").removeprefix("_") or "lur"


each = pytest.mark.parametrize("file", FILES, ids=method)


def drawn(each_class: int, seed: int) -> tuple[list[Image.Image], list[int]]:
    """Colored noise: the class is the color."""
    rng = np.random.default_rng(seed)
    labels = [place % 10 for place in range(10 * each_class)]
    colors = np.random.default_rng(0).integers(40, 216, (10, 1, 1, 3))
    pixels = (colors[labels] + rng.integers(-40, 40, (len(labels), 32, 32, 3))).astype(np.uint8)
    return [Image.fromarray(picture) for picture in pixels], labels


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the Hub stores it: Parquet, pictures in `img`, labels in `label`; 300 to learn from, 100 to test on."""
    folder = tmp_path_factory.mktemp("hub") / "cifar10"
    (folder / "data").mkdir(parents=True)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    for seed, (split, count) in enumerate((("train", 30), ("test", 10))):
        pictures, labels = drawn(count, seed)
        data = datasets.Dataset.from_dict({"img": pictures, "label": labels}, features=features)
        data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(autouse=True)
def offline(cifar: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`cifar10` is found on this disk; all else of the configurations stays as it is."""
    base, threads = tmp_path_factory.getbasetemp(), torch.get_num_threads()
    monkeypatch.setitem(ALIASES, "cifar10", replace(ALIASES["cifar10"], id=str(cifar)))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", base / "datasets-cache")
    monkeypatch.setenv("ERASE_CACHE", str(base / "cifar-cache"))
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def words(file: Path, output: Path, steps: int) -> list[str]:
    few: dict[str, object] = SMALL | {"max_train_steps": steps, "lr_warmup_steps": 0, "output_dir": output}
    few |= {"start.samples": 4} if "influence" in file.stem else {}
    return [word for key, value in few.items() for word in (f"--{key}", str(value))]


def test_every_baseline_of_the_digits_has_its_config_at_full_size() -> None:
    other = {"class", "flipped10", "lur_trim", "random10", "uniform"}
    digits = {file.stem.removeprefix("digits_") for file in FOLDER.glob("digits_*.yaml")}
    assert {method(file) for file in FILES} == digits - other | {"lur"}


@each
def test_all_follow_one_protocol_with_one_original_and_one_network(file: Path) -> None:
    run, main_run = load(UnlearningRun, file), load(UnlearningRun, MAIN)
    for key in ("data", "forget", "split_seed", "seed", "model", "original", "optimizer", "adam_beta1"):
        assert getattr(run, key) == getattr(main_run, key), key
    assert run.original.max_train_steps == round(182 * TRAIN / run.original.train_batch_size)
    said = " ".join(header(file))
    assert "Published" in said
    assert "Source: " in said or method(file) == "lur"


@pytest.mark.parametrize("name", EPOCHS)
def test_the_steps_are_the_published_epochs(name: str) -> None:
    run, (passes, samples) = load(UnlearningRun, FOLDER / f"cifar10_random10_{name}.yaml"), EPOCHS[name]
    assert run.max_train_steps == pytest.approx(passes * samples / run.train_batch_size, abs=1)


@pytest.mark.parametrize("name", TURNS)
def test_forget_and_retain_steps_each_see_as_many_samples_as_published(name: str) -> None:
    run = load(UnlearningRun, FOLDER / f"cifar10_random10_{name}.yaml")
    assert isinstance(run.update, AlternatingSteps)
    forgetting = sum(run.update.forgets(step) for step in range(run.max_train_steps))
    seen = [steps * run.train_batch_size for steps in (forgetting, run.max_train_steps - forgetting)]
    assert seen == pytest.approx(TURNS[name], abs=run.train_batch_size)


def test_the_network_is_the_resnet_18_of_small_pictures() -> None:
    network = make_model(load(UnlearningRun, MAIN).model, 10, 3)
    assert sum(p.numel() for p in network.parameters()) == 11_173_962
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_tenth_of_each_class_is_held_back_and_a_tenth_of_the_rest_forgotten() -> None:
    run = load(UnlearningRun, MAIN)
    splits = make_splits(run.data, run.forget, run.split_seed)
    assert (len(splits.train), len(splits.forget), len(splits.retain)) == (270, 27, 243)
    assert torch.bincount(splits.validation.labels).tolist() == [3] * 10
    assert splits.test.pixels.shape == (100, 3, 32, 32)
    assert splits.augment == "shift_and_mirror"
    assert splits.classes == tuple(CLASSES)


@each
def test_it_goes_through_with_a_small_network(file: Path, tmp_path: Path) -> None:
    steps = min(2, load(UnlearningRun, file).max_train_steps)
    assert main(["--config", str(file), *words(file, tmp_path / "run", steps)]) == 0
    log = read_log(tmp_path / "run") if steps else []
    assert len(log) == steps
    _, description = load_classifier(tmp_path / "run")
    assert description.classes == tuple(CLASSES)
    assert description.settings.architecture == "test_resnet"


def test_it_is_judged_against_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = next(file for file in FILES if method(file) == "salun")
    monkeypatch.setattr(sys, "argv", ["unlearn_class.py", "--config", str(file), *words(file, tmp_path / "run", 2)])
    assert unlearn_class.main() == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["samples"] | {"train": 270, "forget": 27, "retain": 243, "test": 100} == results["samples"]
    assert {"UA", "RA", "TA", "MIA", "Avg_gap"} <= set(results["judged"]["unlearned"])
    assert results["judged"]["retrained"]["Avg_gap"]["value"] == 0
    assert "10 % of the training samples" in (tmp_path / "run" / "report.html").read_text()
