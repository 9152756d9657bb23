"""FSDP2: two processes that each hold half of every parameter train as one process that holds all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from erase.training.sharding import CONFIG
from erase.training.step_log import read_log
from tests.launch import ROOT, SGD, TRAIN, largest_difference, near, rounding, run, train
from tests.tiny import save_tiny, write_config

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(TRAIN)]
PROBED = {"probe_every": "2", "max_grad_norm": "0.01"}
WAYS: dict[str, dict[str, str]] = {
    "chained": {"update": "{name: lur, mode: chained}", **PROBED},
    "alternating": {"update": "{name: lur, mode: alternating, measure_every: 2}", "gradient_accumulation_steps": "2"},
    "nash": {"update": "{name: nash}", "ema_decay": "0.5", "gradient_checkpointing": "true"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(autouse=True)
def sharded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What `accelerate launch` sets for configs/accelerate/fsdp.yaml, for processes that are started in a test."""
    monkeypatch.setenv("FSDP_VERSION", "2")
    return monkeypatch


def launch(folder: Path, config: Path, patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Two processes with half of the batch each; what they say."""
    with patch.context() as inside:
        inside.setenv("ACCELERATE_USE_FSDP", "true")
        done = run(folder, *LAUNCHER, "--config", str(config), "--train_batch_size", "2", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folders(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    return one, two


def counts(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "provenance.json").read_text())
    return {key: value for key, value in content["counts"].items() if key != "seconds"}


def assert_logs_agree(one: Path, two: Path) -> None:
    for left, right in zip(read_log(one), read_log(two), strict=True):
        expected = near(left)
        assert {key: right[key] for key in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_with_half_of_the_rows_equal_one_with_all(
    model: Path, tmp_path: Path, way: str, sharded: pytest.MonkeyPatch
) -> None:
    one, two = folders(tmp_path)
    assert train(write_config(one, model, **SGD, **WAYS[way], train_batch_size="4")) == 0
    launch(two, write_config(two, model, **SGD, **WAYS[way]), sharded)
    assert largest_difference(model, one / "run") > 1e-4
    assert largest_difference(one / "run", two / "run") <= rounding(model, one / "run")
    assert_logs_agree(one / "run", two / "run")
    assert counts(one / "run") == counts(two / "run")
    assert type(StableDiffusionPipeline.from_pretrained(two / "run").unet).__name__ == "UNet2DConditionModel"
    index = json.loads((two / "run" / "unet" / "config.json").read_text())
    assert index["_class_name"] == "UNet2DConditionModel"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "share"), [("'no'", 1e-4), ("bf16", 0.1)])  # bf16 rounds activations by 1/256
def test_an_adapter_in_rows_equals_a_whole_one(
    model: Path, tmp_path: Path, precision: str, share: float, sharded: pytest.MonkeyPatch
) -> None:
    one, two = folders(tmp_path)
    given = {**SGD, "parameters": "{name: lora, rank: 3}", "update": "{name: pcgrad}", "mixed_precision": precision}
    assert train(write_config(one, model, **given, train_batch_size="4")) == 0
    launch(two, write_config(two, model, **given), sharded)
    left, right = (load_file(folder / "run" / "pytorch_lora_weights.safetensors") for folder in (one, two))
    assert left.keys() == right.keys()
    moved = max(w.abs().max().item() for name, w in left.items() if "lora_B" in name or "lora.up" in name)
    assert moved > 0
    rounded = 4 * 2**-24  # of weights below 1, by 4 steps
    assert max((left[name] - right[name]).abs().max().item() for name in left) <= rounded + share * moved


@pytest.mark.slow
def test_a_checkpoint_does_not_depend_on_how_parameters_were_held(
    model: Path, tmp_path: Path, sharded: pytest.MonkeyPatch
) -> None:
    """The same files, keys and shapes; gone on from, the result is that of a run that never stopped."""
    one, two = folders(tmp_path)
    given = {**SGD, "ema_decay": "0.9"}
    assert train(write_config(one, model, **given, train_batch_size="4")) == 0
    config = write_config(two, model, **given)
    launch(two, config, sharded)
    places = [folder / "run" / "checkpoint-2" for folder in (one, two)]
    stored = [{file.name: load_file(file) for file in place.glob("*.safetensors")} for place in places]
    assert {name.split(".")[0] for name in stored[0]} == {"trainable", "optimizer", "average"}
    assert stored[0].keys() == stored[1].keys()
    for name, tensors in stored[0].items():
        assert {key: value.shape for key, value in tensors.items()} == {k: v.shape for k, v in stored[1][name].items()}
    (two / "run" / "checkpoint-4").rename(tmp_path / "lost")
    launch(two, config, sharded, "--resume_from_checkpoint", "latest")
    assert largest_difference(one / "run", two / "run") <= rounding(model, one / "run")
    assert len(read_log(two / "run")) == 4


def test_processes_that_are_not_connected_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sharded: pytest.MonkeyPatch
) -> None:
    """As accelerate leaves them where its config asks for FSDP and there is no GPU: both would write the result."""
    sharded.setenv("RANK", "1")
    sharded.setenv("WORLD_SIZE", "2")
    assert train(write_config(tmp_path, model)) == 2
    assert "processes: 2 were started" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_accelerate_s_own_launcher_reads_the_config(model: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path, model))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / CONFIG), "--num_processes", "2"]
    done = run(tmp_path, *launcher, str(TRAIN), "--config", config)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_what_rows_do_not_allow_is_refused_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sharded: pytest.MonkeyPatch
) -> None:
    sharded.setenv("ACCELERATE_USE_FSDP", "true")
    sharded.setenv("FSDP_VERSION", "1")
    config = write_config(tmp_path, tmp_path / "none", update="{name: lur, mode: exact}", compile="true")
    assert train(config) == 2
    said = capsys.readouterr().err
    for key in ("fsdp_version: found 1", "update.mode: exact differentiates twice", "compile: does not go together"):
        assert key in said


def test_the_documented_settings_of_accelerate_are_read_by_accelerate() -> None:
    config = load_config_from_file(str(ROOT / CONFIG))
    assert config.distributed_type == "FSDP"
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_offload_params"] is False
