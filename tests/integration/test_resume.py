"""A run that was stopped and resumed equals one that was not, bit for bit; a checkpoint of another run is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.launch import listing, train, train_and_stop
from tests.properties import assert_same_bits
from tests.tiny import draw_captioned, save_tiny, write_config

UNET = "unet/diffusion_pytorch_model.safetensors"
ADAPTER = "pytorch_lora_weights.safetensors"
RUNS = {
    "full, chained": (UNET, []),
    "lora, alternating": (ADAPTER, ["--parameters.name", "lora", "--update.mode", "alternating"]),
    "lora, measured": (ADAPTER, ["--parameters.name", "lora", "--update", "{mode: alternating, measure_every: 2}"]),
    "cosine": (UNET, ["--lr_scheduler", "cosine", "--lr_warmup_steps", "2", "--parameters.name", "cross_attention"]),
    "sgd, displacement": (UNET, ["--optimizer", "sgd", "--update.alpha", "{name: displacement, ratio: 1.0e-3}"]),
}

WORDS = """
domains: {object: [star, ring], color: [red]}
templates: ["a {color} {object}", "a {color} shape", "a {object}"]
"""


@pytest.fixture
def halfway(place: Path, tmp_path: Path) -> Path:
    """The run as a crash in step 5 of 6 would have left it: a checkpoint at 2, a log with more, half a line."""
    folder = tmp_path / "halfway"
    folder.mkdir()
    shutil.copytree(place / "run" / "checkpoint-2", folder / "checkpoint-2")
    shutil.copy(place / "run" / "config.yaml", folder)
    text = (place / "run" / "steps.jsonl").read_text()
    (folder / "steps.jsonl").write_text(text + '{"step": 5, "retain_lo')
    return folder


def assert_same_run(left: Path, right: Path, result: str) -> None:
    a, b = load_file(left / result), load_file(right / result)
    assert a.keys() == b.keys()
    assert_same_bits([a[name] for name in a], [b[name] for name in a])
    if result == UNET:
        assert (left / result).read_bytes() == (right / result).read_bytes()
    assert (left / "steps.jsonl").read_text() == (right / "steps.jsonl").read_text()
    assert counts(left) == counts(right), "a resumed run counts all its parts"


def counts(run: Path) -> dict[str, int]:
    found = json.loads((run / "provenance.json").read_text())["counts"]
    found.pop("seconds")
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(model: Path, tmp_path: Path, name: str) -> None:
    result, arguments = RUNS[name]
    config = write_config(tmp_path, model, checkpointing_steps="100", max_train_steps="5")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config, *arguments, "--output_dir", str(whole)) == 0
    assert train_and_stop(config, 3, *arguments, "--output_dir", str(parts)) == 143
    assert [folder.name for folder in parts.glob("checkpoint-*")] == ["checkpoint-3"]
    assert not (parts / result).exists()
    assert train(config, *arguments, "--output_dir", str(parts), "--resume_from_checkpoint", "latest") == 0
    assert_same_run(parts, whole, result)


def test_a_run_may_be_stopped_after_every_step(model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, model, checkpointing_steps="100")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    resume = ["--output_dir", str(parts), "--resume_from_checkpoint", "latest"]
    assert train(config, "--output_dir", str(whole)) == 0
    assert train_and_stop(config, 1, "--output_dir", str(parts)) == 143
    assert train_and_stop(config, 2, *resume) == 143
    assert train_and_stop(config, 3, *resume) == 143
    assert train(config, *resume) == 0
    assert_same_run(parts, whole, UNET)


@pytest.mark.parametrize("latest", [True, False])
def test_a_crashed_run_goes_on_from_latest_or_from_a_path(place: Path, halfway: Path, latest: bool) -> None:
    wanted = "latest" if latest else str(halfway / "checkpoint-2")
    arguments = ["--output_dir", str(halfway), "--resume_from_checkpoint", wanted]
    assert train(place / "config.yaml", *arguments) == 0
    assert_same_run(halfway, place / "run", UNET)


def test_resuming_a_finished_run_changes_no_weight_and_no_line(place: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(place / "run", again)
    arguments = ["--output_dir", str(again), "--resume_from_checkpoint", "latest"]
    assert train(place / "config.yaml", *arguments) == 0
    assert_same_run(again, place / "run", UNET)


def test_a_checkpoint_holds_safetensors_and_json_only(place: Path) -> None:
    for step in (2, 4):
        files = {file.name for file in (place / "run" / f"checkpoint-{step}").iterdir()}
        assert files == {"trainable.safetensors", "optimizer.safetensors", "state.json"}
        state = json.loads((place / "run" / f"checkpoint-{step}" / "state.json").read_text())
        assert state["update"]["step"] == step


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--learning_rate", "2e-3"], ["config.learning_rate: 0.001 then, 0.002 now"]),
        (["--seed", "7"], ["config.seed: 0 then, 7 now"]),
        (["--train_batch_size", "4"], ["total_batch: 2 then, 4 now"]),
        (["--update.mode", "exact"], ["config.update.mode: 'chained' then, 'exact' now"]),
        (["--parameters.name", "cross_attention"], ["config.parameters.name: 'full' then, 'cross_attention' now"]),
        (["--max_train_steps", "9", "--seed", "7"], ["max_train_steps: 4 then, 9 now", "seed: 0 then, 7 now"]),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_they_are_named(
    place: Path, halfway: Path, arguments: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(halfway, place)
    resume = ["--output_dir", str(halfway), "--resume_from_checkpoint", "latest"]
    assert train(place / "config.yaml", *resume, *arguments) == 2
    printed = capsys.readouterr().err
    assert [text for text in says if text not in printed] == []
    assert "resume_from_checkpoint" in printed
    assert listing(halfway, place) == before, "no latents are made for a run that is refused"


def test_a_checkpoint_of_another_base_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(model, tmp_path / "base")
    config = write_config(tmp_path, base)
    assert train_and_stop(config, 2) == 143
    save_tiny(base, seed=1)
    assert train(config, "--resume_from_checkpoint", "latest") == 2
    assert "base: '" in capsys.readouterr().err


def test_a_checkpoint_of_other_pictures_or_wordings_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the settings, and the prompts, are the same."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    images = draw_captioned(tmp_path / "images", ["a red ring"] * 2)
    words, resume = tmp_path / "words.yaml", ["--resume_from_checkpoint", "latest"]
    words.write_text(WORDS)
    config = write_config(
        tmp_path,
        model,
        vocabulary=str(words),
        targets="[{concept: star, prompts: [a red star]}]",
        retain_loss="{name: denoising}",
        retain=f"{{images: {images}}}",
    )
    assert train_and_stop(config, 2) == 143
    words.write_text(WORDS.replace("a {color} shape", "a {color} circle"))
    shutil.copy(images / "1.png", images / "0.png")
    assert train(config, *resume) == 2
    printed = capsys.readouterr().err
    assert "data.images: '" in printed and "data.wordings: '" in printed and "prompts." not in printed
    words.write_text(WORDS)
    shutil.rmtree(images)
    draw_captioned(images, ["a red ring"] * 2)
    assert train(config, *resume) == 0


def test_settings_that_change_no_step_may_differ(place: Path, halfway: Path) -> None:
    free = ["--checkpointing_steps", "3", "--checkpoints_total_limit", "1", "--latents.batch_size", "3"]
    resume = ["--output_dir", str(halfway), "--resume_from_checkpoint", "latest"]
    assert train(place / "config.yaml", *resume, *free) == 0
    assert_same_run(halfway, place / "run", UNET)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("trainable.safetensors", "checkpoint-2 is damaged"),
        ("optimizer.safetensors", "checkpoint-2 is damaged"),
        ("state.json", "state.json is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    place: Path, halfway: Path, spoil: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = halfway / "checkpoint-2" / spoil
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    before = listing(halfway)
    arguments = ["--output_dir", str(halfway), "--resume_from_checkpoint", "latest"]
    assert train(place / "config.yaml", *arguments) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert "Traceback" not in printed
    assert listing(halfway) == before


def test_a_rule_whose_memory_no_checkpoint_holds_is_not_resumed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output_dir", str(tmp_path / "new"), "--resume_from_checkpoint", "latest", "--update", "torchjd"]
    assert train(place / "config.yaml", *arguments, "--update.aggregator", "PCD") == 2
    assert "update.aggregator: PCD remembers past steps" in capsys.readouterr().err
    assert train(place / "config.yaml", *arguments, "--update.aggregator", "UPGrad") == 2
    assert "holds no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["latest", "nowhere"])
def test_resuming_where_there_is_nothing_is_refused(
    place: Path, tmp_path: Path, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output_dir", str(tmp_path / "new"), "--resume_from_checkpoint", wanted]
    assert train(place / "config.yaml", *arguments) == 2
    says = {"latest": f"{tmp_path / 'new'} holds no checkpoint", "nowhere": "nowhere is no checkpoint"}
    assert says[wanted] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
