"""What a run writes down: provenance, the resolved settings, the step log; and the dry run, which writes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from erase.config import dump, load
from erase.provenance import hash_folder
from erase.training.erasure import ErasureRun
from erase.training.step_log import read_log
from tests.launch import listing, train, unet
from tests.tiny import write_config

KEYS = ("retain_loss", "forget_loss", "retain_norm", "forget_norm", "cosine", "correction", "alpha", "evaluations")


@pytest.fixture
def provenance(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place / "run" / "provenance.json").read_text())
    return content


def test_provenance_names_base_concept_settings_and_versions(
    model: Path, place: Path, provenance: dict[str, Any]
) -> None:
    assert provenance["erased"] == ["star"]
    base = {"model": str(model), "revision": None, "hash": hash_folder(model), "is_folder": True}
    assert provenance["base"] == base
    assert provenance["config"] == dump(load(ErasureRun, place / "config.yaml"))
    assert provenance["trained_parameters"] == sum(w.numel() for w in unet(model).values())
    assert (provenance["processes"], provenance["device"]) == (1, "cpu")
    assert {"torch", "diffusers", "transformers", "accelerate"} <= provenance["environment"]["libraries"].keys()
    assert {len(value) for value in provenance["prompt_hashes"].values()} == {64}


def test_provenance_counts_what_the_run_cost(provenance: dict[str, Any]) -> None:
    """10 latents of 2 steps, guided; then 4 steps of batch 2: 2 + 1 for the targets, 3 gradient evaluations.

    A look for alpha, of 3 gradient evaluations, at the first step's targets.
    """
    counts = provenance["counts"]
    assert counts["latent_evaluations"] == 10 * 2 * 2
    assert counts["training_evaluations"] == 4 * 2 * (2 + 1 + 3) + 2 * 3
    assert counts["gradient_evaluations"] == (1 + 4) * 3
    assert counts["seconds"] > 0


def test_the_second_run_finds_its_latents_in_the_cache(place: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert train(place / "config.yaml", "--output_dir", str(again)) == 0
    counts = json.loads((again / "provenance.json").read_text())["counts"]
    assert counts["latent_evaluations"] == 10 * 2 * 2, "what they took when they were made"
    assert (again / "steps.jsonl").read_text() == (place / "run" / "steps.jsonl").read_text()


def test_the_settings_it_writes_are_those_it_ran_with(place: Path) -> None:
    assert load(ErasureRun, place / "run" / "config.yaml") == load(ErasureRun, place / "config.yaml")


def test_the_settings_it_writes_hold_the_command_line_s(place: Path, tmp_path: Path) -> None:
    arguments = ["--learning_rate", "2e-4", "--update.mode", "alternating", "--output_dir", str(tmp_path / "run")]
    assert train(place / "config.yaml", *arguments) == 0
    written = load(ErasureRun, tmp_path / "run" / "config.yaml")
    assert written.learning_rate == 2e-4
    assert dump(written)["update"]["mode"] == "alternating"


def test_the_log_has_both_losses_norms_cosine_and_correction_of_each_step(place: Path) -> None:
    lines = read_log(place / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [key for line in lines for key in KEYS if not math.isfinite(line[key])] == []
    assert all(line["forget_loss"] > 0 and line["forget_norm"] > 0 for line in lines)
    assert all(line["retain_loss"] > 0 and -1 <= line["cosine"] <= 1 for line in lines[1:])
    assert all(line["correction"] > 0 for line in lines[1:])
    assert {line["learning_rate"] for line in lines} == {1e-3}


def test_the_first_step_has_nothing_to_retain_yet(place: Path) -> None:
    """But looking ahead along the forget gradient there is: the correction is sought before the step."""
    first = read_log(place / "run")[0]
    assert [first[key] for key in ("retain_loss", "retain_norm", "cosine")] == [0, 0, 0]
    assert first["alpha"] > 0
    assert first["correction"] == pytest.approx(0.1, rel=0.2)


def test_the_log_shows_the_forget_loss_and_norm_without_their_weight(place: Path, tmp_path: Path) -> None:
    """A weight of 4 scales both exactly, in binary."""
    arguments = ["--forget_weight", "4", "--max_train_steps", "1", "--output_dir", str(tmp_path / "run")]
    assert train(place / "config.yaml", *arguments) == 0
    plain, weighted = read_log(place / "run")[0], read_log(tmp_path / "run")[0]
    exact = [key for key in KEYS if key not in ("alpha", "correction")]
    assert [weighted[key] for key in exact] == [plain[key] for key in exact]
    assert weighted["correction"] == pytest.approx(plain["correction"], rel=1e-3), "alpha's scale is the losses'"


def test_a_tracker_gets_the_steps(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert train(place / "config.yaml", "--report_to", "tensorboard", "--output_dir", str(tmp_path / "run")) == 0
    assert len(list((tmp_path / "run" / "logs").rglob("events.out.tfevents.*"))) > 0
    (settings,) = (tmp_path / "run" / "logs").rglob("hparams.yml")
    assert "latents.steps: 2\n" in settings.read_text() and "update.name: lur\n" in settings.read_text()


def test_a_dry_run_writes_nothing_and_prints_counts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, model)
    before = listing(tmp_path, model)
    assert train(config, "--dry_run", "--parameters.name", "cross_attention") == 0
    assert listing(tmp_path, model) == before
    chosen = {name: tensor for name, tensor in unet(model).items() if ".attn2." in name}
    numbers = sum(tensor.numel() for tensor in chosen.values())
    printed = capsys.readouterr().out
    assert f"cross_attention: {len(chosen)} tensors, {numbers:,} numbers" in printed
    assert next(iter(sorted(chosen))) in printed
    assert "star: 42 prompts" in printed
    assert "steps: 4, each of 2 + 2 examples a process" in printed
    assert "latents: 4 of targets + 0 without them + 6 to keep, 2 steps each" in printed
    assert "memory" in printed
