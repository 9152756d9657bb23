"""More than one process, and the launchers: `torchrun` and `accelerate launch` on the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.training.step_log import read_log
from tests.launch import SGD, TRAIN, largest_difference, near, rounding, run, train
from tests.tiny import save_tiny, write_config

MODES = {
    "chained": {"update": "{name: lur, mode: chained}", "probe_every": "2"},
    "alternating": {"update": "{name: lur, mode: alternating, measure_every: 2}", "probe_every": "2"},
}
BLOCKS = 7
"""Attention and convolution of three stages, and the rest."""
PROBED = ("inner_before", "inner_after", "cosine_before", "cosine_after")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


def provenance(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return content


def measured(line: dict[str, Any]) -> dict[str, float]:
    """Without what this step did not measure."""
    return {key: value for key, value in line.items() if value is not None}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_two_processes_equal_one_with_twice_the_batch(model: Path, tmp_path: Path, mode: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert train(write_config(one, model, **SGD, **MODES[mode], train_batch_size="4")) == 0
    config = write_config(two, model, **SGD, **MODES[mode])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run(two, *launcher, str(TRAIN), "--config", str(config), "--train_batch_size", "2")
    assert done.returncode == 0, done.stderr
    made = [provenance(folder / "run") for folder in (one, two)]
    assert [record["processes"] for record in made] == [1, 2]
    assert made[0]["counts"]["training_evaluations"] == made[1]["counts"]["training_evaluations"]
    assert made[0]["counts"]["gradient_evaluations"] == made[1]["counts"]["gradient_evaluations"]
    assert largest_difference(model, one / "run") > 1e-3
    assert largest_difference(one / "run", two / "run") <= rounding(model, one / "run")
    for left, right in zip(read_log(one / "run"), read_log(two / "run"), strict=True):
        assert measured(right) == near(left)
        probed = [key for key in measured(right) if key.startswith(PROBED)]
        assert len(probed) == (len(PROBED) * (1 + BLOCKS) if left["step"] % 2 == 0 else 0)


@pytest.mark.slow
def test_accelerate_launches_the_file_from_another_directory(model: Path, tmp_path: Path) -> None:
    """`erase/` itself is first on sys.path then: no module in it may hide another's."""
    write_config(tmp_path, model)
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    done = run(tmp_path, *launcher, str(TRAIN), "--config", "config.yaml", "--output_dir", "here/run")
    assert done.returncode == 0, done.stderr
    assert provenance(tmp_path / "here" / "run")["erased"] == ["star"]
    assert (tmp_path / "here" / "run" / "model_index.json").exists()


@pytest.mark.slow
def test_a_mistake_of_all_processes_is_said_once(model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, model)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run(tmp_path, *launcher, str(TRAIN), "--config", str(config), "--learning_rate", "0")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if "learning_rate: found 0" in line][1:] == []
    assert "erase train: learning_rate: found 0" in done.stderr
    assert not (tmp_path / "run").exists()
