"""Every update mode and every choice of alpha runs, and takes the evaluations it says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from erase.training.step_log import read_log
from tests.launch import train, unet
from tests.properties import assert_finite, assert_same_bits
from tests.tiny import save_tiny, write_config

EVALUATIONS = {
    "chained": [3, 3, 3, 3],
    "exact": [3, 3, 3, 3],
    "alternating": [2, 3, 2, 3],
    "first_order": [2, 3, 2, 3],
}
"""Of four steps, where every second one is measured; with alpha steered by them, all but the first."""
ALPHAS = {
    "absolute": "{name: absolute, value: 0.03}",
    "displacement": "{name: displacement, ratio: 1.0e-3}",
    "correction": "{name: correction, ratio: 0.1}",
}
LINE = "{{name: lur, mode: {mode}, alpha: {alpha}, measure_every: 2}}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("mode", EVALUATIONS)
def test_every_mode_runs_with_every_alpha(model: Path, tmp_path: Path, mode: str, alpha: str) -> None:
    config = write_config(tmp_path, model, update=LINE.format(mode=mode, alpha=ALPHAS[alpha]))
    assert train(config) == 0
    assert_finite(unet(tmp_path / "run").values())
    lines = read_log(tmp_path / "run")
    expected = [2, 3, 3, 3] if alpha == "correction" and EVALUATIONS[mode][0] == 2 else EVALUATIONS[mode]
    sought = [3 if alpha == "correction" else 0, 0, 0, 0]  # before the first step
    assert [line["evaluations"] for line in lines] == [sum(each) for each in zip(sought, expected, strict=True)]
    measured = [line["correction"] for line in lines]
    assert [value is not None for value in measured] == [count == 3 for count in expected]
    used = [line["alpha"] for line in lines]
    if alpha == "absolute":
        assert used == [0.03] * 4
    else:
        assert (used[0] > 0) is (alpha == "correction")
        assert all(0 < value < math.inf for value in used[1:])


def test_the_correction_s_share_is_steered_towards_its_ratio(model: Path, tmp_path: Path) -> None:
    """The tiny UNet's curvature changes from batch to batch, so the last ten steps' mean within a factor of 2."""
    config = write_config(tmp_path, model, max_train_steps="30", checkpointing_steps="100")
    assert train(config) == 0
    seen = [line["correction"] for line in read_log(tmp_path / "run")[-10:]]
    assert 0.05 < sum(seen) / len(seen) < 0.2


def test_without_a_look_ahead_every_mode_is_the_weighted_sum(model: Path, tmp_path: Path) -> None:
    """At alpha 0 the two gradients are added in one order or the other, which in floating point is the same."""
    config = write_config(tmp_path, model, update="{name: weighted_sum}")
    assert train(config) == 0
    plain = read_log(tmp_path / "run")
    assert [(line["evaluations"], line["alpha"], line["correction"]) for line in plain] == [(2, None, None)] * 4
    for mode in ("chained", "alternating", "first_order"):
        folder = tmp_path / mode
        line = LINE.format(mode=mode, alpha="{name: absolute, value: 0}")
        assert train(write_config(tmp_path, model, update=line), "--output_dir", str(folder)) == 0
        assert_same_bits(unet(folder).values(), unet(tmp_path / "run").values())
