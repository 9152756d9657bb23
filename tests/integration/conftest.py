"""A tiny base and a finished run on it, made once for each file of tests that asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch import train
from tests.tiny import save_tiny, write_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def place(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config.yaml, cache/ and a finished run/ of 4 steps with a checkpoint at 2 and at 4."""
    folder = tmp_path_factory.mktemp("place")
    assert train(write_config(folder, model)) == 0
    return folder
