"""`erase generate`: from the command line to a folder, on the real classes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from erase import cli
from erase.config import keys
from erase.embedded import FULL_TEMPLATE, VOCABULARY, WEIGHTS
from erase.generate import main
from erase.generation.folder import open_folder
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import vocabulary_set
from erase.generation.sampler import PipelineSampler
from erase.generation.settings import Generation
from tests.generation import arguments, content, one_thread, settings, write_set
from tests.launch import listing, train
from tests.tiny import write_config

ONE_LEVEL = 1
"""Of 255, see `tests/unit/generation/test_sampler.py`."""


@pytest.fixture
def generation(model: Path, tmp_path: Path) -> Generation:
    return settings(model, write_set(tmp_path), tmp_path / "out", images_per_prompt=2)


def largest_difference(left: Path, right: Path) -> int:
    """Of any pixel of the images in two folders."""
    names = sorted(file.name for file in (left / "images").iterdir())
    assert names == sorted(file.name for file in (right / "images").iterdir())
    pairs = [(np.asarray(Image.open(folder / "images" / name), int) for folder in (left, right)) for name in names]
    return max(int(np.abs(a - b).max()) for a, b in pairs)


def test_the_command_makes_a_folder_and_says_so(generation: Generation, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", *arguments(generation)]) == 0
    printed = capsys.readouterr().out
    assert "20 images, 20 of them made now in" in printed
    assert len(open_folder(generation.output_dir).pictures) == 20
    before = listing(generation.output_dir)
    assert cli.main(["generate", *arguments(generation)]) == 0
    assert "20 images, 0 of them made now" in capsys.readouterr().out
    assert listing(generation.output_dir) == before


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_the_batch_size_changes_no_picture_but_for_its_rounding(
    generation: Generation, tmp_path: Path, batch_size: int
) -> None:
    assert main(arguments(generation)) == 0
    other = settings(
        Path(generation.model), Path(generation.prompts), tmp_path / "other", images_per_prompt=2, batch_size=batch_size
    )
    assert main(arguments(other)) == 0
    assert largest_difference(generation.output_dir, other.output_dir) <= ONE_LEVEL


def test_the_order_and_the_company_of_rows_change_no_picture(generation: Generation, tmp_path: Path) -> None:
    assert main(arguments(generation)) == 0
    lines = Path(generation.prompts).read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    other = settings(Path(generation.model), tmp_path / "turned.csv", tmp_path / "turned", images_per_prompt=2)
    assert main(arguments(other)) == 0
    assert largest_difference(generation.output_dir, other.output_dir) <= ONE_LEVEL


def test_a_dry_run_says_what_would_be_made_and_writes_nothing(
    generation: Generation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(tmp_path)
    assert main([*arguments(generation), "--dry_run"]) == 0
    printed = capsys.readouterr().out
    for says in ("10 rows, 5 distinct, such as 'a star'", "images: 20, 2 of each row, in 6 batches", "out: new"):
        assert says in printed
    assert "14: 16 x 16 pixels, 2 steps, guidance 4" in printed
    assert "6: 16 x 16 pixels, 3 steps, guidance 1" in printed
    assert listing(tmp_path) == before
    assert main(arguments(generation)) == 0
    assert main([*arguments(generation), "--dry_run"]) == 0
    assert "20 of 20 images are there" in capsys.readouterr().out
    assert main([*arguments(generation), "--dry_run", "--guidance_scale", "9"]) == 2
    assert "guidance_scale: 4.0 then, 9.0 now" in capsys.readouterr().err


def test_help_lists_every_key_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    top = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert {lines[i].split()[0].removeprefix("--") for i in top} == keys(Generation) | {"config", "dry_run"}
    assert [lines[i] for i in top if not lines[i + 1].startswith(" " * 8)] == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--prompts", "nowhere.csv"], "prompts: nowhere.csv: there is no such file"),
        (["--model", "nowhere"], "model: 'nowhere' is no folder"),
        (["--lora", "nowhere"], "lora: nowhere: there is no such file"),
        (["--width", "500"], "width: found 500; input should be a multiple of 8"),
        (["--batch_size", "0"], "batch_size: found 0"),
        (["--dtype", "int8"], "dtype: found 'int8'"),
        (["--seed", "7"], "seed: found 7; each of these prompts has a seed of its own"),
        (["--promts", "x"], "promts: unknown key (value 'x'); did you mean prompts?"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(
    generation: Generation, tmp_path: Path, wrong: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(tmp_path)
    assert main([*arguments(generation), *wrong]) == 2
    assert f"erase generate: {says}" in capsys.readouterr().err
    assert listing(tmp_path) == before


def test_a_prompt_that_the_model_cannot_read_is_refused_before_anything_is_written(
    generation: Generation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strange.csv").write_text("prompt,seed\na church,1\n")
    assert main([*arguments(generation), "--prompts", str(tmp_path / "strange.csv")]) == 2
    assert "'a church'" in capsys.readouterr().err
    assert not generation.output_dir.exists()


def test_ctrl_c_ends_the_run_after_a_batch_and_the_same_command_goes_on(
    generation: Generation, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_thread()
    whole = settings(Path(generation.model), Path(generation.prompts), tmp_path / "whole", images_per_prompt=2)
    assert main(arguments(whole)) == 0
    sample, before = PipelineSampler.__call__, signal.getsignal(signal.SIGTERM)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):

        def signalled(self: PipelineSampler, batch: Any, number: int = number) -> Any:
            signal.raise_signal(number)
            return sample(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(PipelineSampler, "__call__", signalled)
            assert main(arguments(generation)) == code
        printed = capsys.readouterr().err
        assert f"Interrupted: {4 if number == signal.SIGINT else 8} of 20 images are in" in printed
        assert "To go on, run the same command again" in printed
        assert signal.getsignal(signal.SIGTERM) == before
    assert main(arguments(generation)) == 0
    assert content(generation.output_dir) == content(whole.output_dir)


def test_an_erased_models_lora_gives_the_pictures_of_its_merged_model(model: Path, tmp_path: Path) -> None:
    one_thread()
    scaled = "{name: lora, rank: 2, alpha: 8, target_modules: [to_q, to_k, to_v, to_out.0]}"
    assert train(write_config(tmp_path, model, parameters=scaled, save_merged="true", learning_rate="0.1")) == 0
    file = write_set(tmp_path)
    made = {
        "base": settings(model, file, tmp_path / "base"),
        "lora": settings(model, file, tmp_path / "lora", lora=tmp_path / "run"),
        "merged": settings(tmp_path / "run" / "merged", file, tmp_path / "merged"),
    }
    for generation in made.values():
        lora = ["--lora", str(generation.lora)] if generation.lora else []
        assert main([*arguments(generation), *lora]) == 0
    images = {name: {k: v for k, v in content(tmp_path / name).items() if k.endswith(".png")} for name in made}
    assert images["lora"] == images["merged"]
    assert images["lora"] != images["base"]
    header = json.loads((tmp_path / "lora" / "generation.json").read_text())
    assert header["lora"]["name"] == str(tmp_path / "run")
    assert main([*arguments(made["lora"])]) == 2, "the same folder without the LoRA"


@pytest.mark.slow
@torch.no_grad()
def test_the_embedded_model_draws_what_its_set_asks_for(tmp_path: Path) -> None:
    """A part of `--prompts shapes`, judged by transformers with the embedded classifier."""
    rows = vocabulary_set(VOCABULARY, FULL_TEMPLATE, seed=0)[::15]
    write_prompt_set(rows, tmp_path / "set.csv")
    command = ["--prompts", str(tmp_path / "set.csv"), "--num_inference_steps", "15", "--guidance_scale", "4"]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--batch_size", "16"]) == 0
    judge = AutoModelForImageClassification.from_pretrained(WEIGHTS / "classifier").float().eval()
    processor, labels, right = AutoImageProcessor.from_pretrained(WEIGHTS / "classifier"), judge.config.label2id, 0
    for pictures, images in open_folder(tmp_path / "out").batches(8):
        logits = judge(**processor(images, return_tensors="pt")).logits
        for picture, row in zip(pictures, logits, strict=True):
            for domain, concept in picture.concepts.items():
                of = {label: int(place) for label, place in labels.items() if label.startswith(f"{domain}/")}
                right += max(of, key=lambda label: row[of[label]].item()) == f"{domain}/{concept}"
    assert right >= 0.95 * 3 * len(rows)
