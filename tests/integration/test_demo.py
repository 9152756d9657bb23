"""`erase demo`, shortened: the same rooms as the real one, a few steps of each."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from erase.demo import main

SHORT = ["--max_train_steps", "2", "--steps", "2"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERASE_CACHE", str(folder / "cache"))
        assert main(["--target", "dotted", "--output", str(folder / "out"), *SHORT]) == 0
    return folder / "out"


def test_the_erased_pipeline_loads_with_plain_diffusers(demo: Path) -> None:
    StableDiffusionPipeline.from_pretrained(demo / "erased")


def test_results_hold_both_models_the_seeds_and_the_command(demo: Path) -> None:
    results = json.loads((demo / "results.json").read_text())
    assert (results["target"], results["domain"]) == ("dotted", "style")
    for side in ("base", "erased"):
        scores, concepts = results[side]["scores"], results[side]["concepts"]
        assert {"UA", "IRA", "CRA_kept", "CRA_erased", "none_erased", "none_kept", "clip_kept"} <= set(scores)
        assert scores["images_erased"] == 48 and scores["images_kept"] == 192
        assert len(concepts) == 8 + 6 + 5
        assert concepts["dotted"]["accuracy"] == pytest.approx(1 - scores["UA"])
    manifest = (demo / "images" / "erased" / "manifest.jsonl").read_text().splitlines()
    assert len({json.loads(line)["seed"] for line in manifest}) == 240
    assert results["effects"]["scores"]["UA"]["images"] == 48 and results["moved"]["clip_distance"]["kept"]["n"] == 192
    assert results["prompts"]["evaluation_seed"] == 0, "from which the seeds of the prompts `shapes` are derived"
    assert results["command"].startswith("erase demo --target dotted")
    assert "--max_train_steps 2 --lr_warmup_steps 1 " in results["erase_command"], "the warmup ends before the run"
    assert results["base"]["hash"] != results["erased"]["hash"]


def test_the_report_is_one_page_with_the_pictures_in_it(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2 * 24
    assert "erase demo --target dotted" in page


def test_a_demo_is_not_overwritten_unasked(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (demo / "results.json").read_bytes()
    assert main(["--target", "star", "--output", str(demo), *SHORT]) == 2
    assert "output" in capsys.readouterr().err and (demo / "results.json").read_bytes() == before


@pytest.mark.parametrize("wrong", [["--target", "zebra"], ["--resume_from_checkpoint", "missing"]])
def test_an_earlier_demo_outlives_a_refused_one(
    demo: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(demo.rglob("*"))
    assert main(["--target", "dotted", *wrong, "--output", str(demo), "--overwrite", *SHORT]) == 2
    assert capsys.readouterr().err and sorted(demo.rglob("*")) == before


def test_a_target_that_the_vocabulary_lacks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--target", "zebra", "--output", str(tmp_path / "out")]) == 2
    assert "zebra" in (message := capsys.readouterr().err) and "circle" in message
    assert not (tmp_path / "out").exists()


def test_an_earlier_demo_in_the_working_directory_is_emptied_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "erased").mkdir()
    (tmp_path / "erased" / "steps.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("erase.demo.erase_concepts", lambda _: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert main(["--output", ".", "--overwrite", *SHORT]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []
