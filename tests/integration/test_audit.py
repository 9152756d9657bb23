"""`erase audit` on two tiny models: what lies in the folder, what is used again, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from erase import embedded
from erase.audit import main
from erase.generation.folder import open_folder
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import PromptRow, vocabulary_set
from erase.generation.sampler import PipelineSampler
from tests.tiny import save_tiny

ROWS = vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=3)[::5]
"""48 prompts: six of each object."""
METRICS = (
    "[{name: concept_classifier}, {name: clip_score, model: shapes}, {name: clip_distance, model: shapes}, "
    "{name: pixel_distance}, {name: kid, features: {name: clip, model: shapes}}, "
    "{name: clip_accuracy, model: shapes, target: a star, anchor: a ring}]"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a set of prompts."""
    folder = tmp_path_factory.mktemp("audit")
    save_tiny(folder / "before")
    save_tiny(folder / "after", seed=1)
    write_prompt_set(ROWS, folder / "set.csv")
    return folder


def audit(place: Path, *more: str, erased: str = "after", output: str = "out") -> int:
    torch.set_num_threads(1)
    given = {"base": place / "before", "erased": place / erased, "target": "star", "prompts": place / "set.csv"}
    given |= {"num_inference_steps": 1, "guidance_scale": 2, "batch_size": 16, "output_dir": place / output}
    return main([*(text for key, value in given.items() for text in (f"--{key}", str(value))), *more])


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    assert audit(place, "--metrics", METRICS, "--neighbours", "[red]", "--nearest", "3") == 0
    return place / "out"


def results_of(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_both_sides_are_of_the_same_prompts_and_seeds(done: Path) -> None:
    before, after = (open_folder(done / "images" / side) for side in ("base", "erased"))
    assert [p.prompt for p in before.pictures] == [row.prompt for row in ROWS] == [p.prompt for p in after.pictures]
    assert [p.seed for p in before.pictures] == [row.seed for row in ROWS] == [p.seed for p in after.pictures]
    assert {p.sha256 for p in before.pictures}.isdisjoint(p.sha256 for p in after.pictures)


def test_every_picture_has_its_scores_and_every_file_says_how_it_was_measured(done: Path) -> None:
    files = sorted(str(file.relative_to(done / "scores")) for file in done.rglob("*.parquet"))
    single = ("clip_accuracy", "clip_score", "concept_classifier")
    assert files == sorted(
        [f"{side}/{name}.parquet" for side in ("base", "erased") for name in single]
        + ["pairs/clip_distance.parquet", "pairs/pixel_distance.parquet"]
    )
    for file in done.rglob("*.parquet"):
        table = pq.read_table(file)
        assert table.num_rows == len(ROWS)
        assert json.loads(table.schema.metadata[b"erase"])["identity"]


def test_the_results_hold_figures_intervals_and_identities(done: Path) -> None:
    results = results_of(done)
    assert (results["target"], results["domain"], results["judge"]) == ("star", "object", "concept_classifier")
    assert results["effects"]["scores"]["UA"]["images"] == 6 and results["prompts"]["count"] == 48
    assert results["effects"]["scores"]["UA"]["verdict"] == "too few images"
    assert {"clip_score", "concept_classifier", "clip_distance", "pixel_distance"} <= set(results["metrics"])
    assert set(results["moved"]) == {"clip_distance", "mean_absolute_difference", "ssim"}
    assert results["distances"]["kid"]["kept"]["n"] == 42
    assert results["prompts"]["evaluation_seed"] is None, "each row of the set has a seed of its own"
    assert results["nudity"] is None
    fates = results["collateral"]
    assert len(fates) == 4 and fates[-1]["concept"] == "red" and fates[-1]["listed"]
    assert [fate["cosine"] for fate in fates[:3]] == sorted((fate["cosine"] for fate in fates[:3]), reverse=True)


def test_neighbours_are_looked_at_where_the_target_is_not_asked_for(done: Path) -> None:
    red = sum(row.concepts["color"] == "red" and row.concepts["object"] != "star" for row in ROWS)
    assert results_of(done)["collateral"][-1]["images"] == red


def test_the_page_holds_every_section(done: Path) -> None:
    page = (done / "report.html").read_text()
    for section in ("pictures", "concepts", "neighbours", "scores", "measures", "training", "reproduce"):
        assert f'id="{section}"' in page
    assert "There is no step log" in page and "erase audit --base" in page


def test_the_same_command_again_makes_nothing_anew(place: Path, done: Path) -> None:
    kept = [*done.rglob("*.png"), *done.rglob("*.parquet"), *done.rglob("*.npy")]
    before = {file: file.stat().st_mtime_ns for file in kept}
    results = results_of(done)
    assert audit(place, "--metrics", METRICS, "--neighbours", "[red]", "--nearest", "3") == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert {k: v for k, v in results_of(done).items() if k != "environment"} == {
        k: v for k, v in results.items() if k != "environment"
    }


def test_a_damaged_picture_is_made_again_and_measured_again(place: Path, done: Path) -> None:
    shutil.copytree(done, place / "mended")
    victim = next((place / "mended" / "images" / "erased" / "images").glob("*.png"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    assert audit(place, "--metrics", METRICS, output="mended") == 0
    assert victim.read_bytes() == whole


def test_overwriting_makes_pictures_and_scores_again(
    place: Path, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an audit that is stopped in it goes on without --overwrite, of whatever target and model it was before."""
    sample = PipelineSampler.__call__

    def signalled(self: PipelineSampler, batch: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return sample(self, batch)

    again = shutil.copytree(done, place / "again")
    (again / "scores" / "notes.txt").touch()
    kinds = ("*.png", "*.parquet", "*.npy")
    before = {file: file.stat().st_mtime_ns for kind in kinds for file in again.rglob(kind)}
    assert {file.suffix for file in before} == {".png", ".parquet", ".npy"}
    words = ["--metrics", METRICS.replace("a star", "a moon"), "--target", "moon"]
    with monkeypatch.context() as patch:
        patch.setattr(PipelineSampler, "__call__", signalled)
        assert audit(place, *words, "--overwrite", erased="before", output="again") == 130
    assert not [file for file in before if file.suffix != ".png" and file.exists()]
    capsys.readouterr()
    assert audit(place, *words, erased="before", output="again") == 0, capsys.readouterr().err
    made = {file: file.stat().st_mtime_ns for kind in kinds for file in again.rglob(kind)}
    assert made.keys() == before.keys() and not made.items() & before.items()
    assert results_of(again)["target"] == "moon" and (again / "scores" / "notes.txt").exists()


def test_an_audit_of_another_model_does_not_mix_in(place: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results_of(done)
    assert audit(place, "--metrics", METRICS, erased="before") == 2
    message = capsys.readouterr().err
    assert "model.hash" in message and "output_dir" in message and results_of(done) == before


def test_a_model_beside_itself_shows_no_change(place: Path) -> None:
    metrics = "[{name: concept_classifier}, {name: clip_score, model: shapes}, {name: pixel_distance}]"
    assert audit(place, "--metrics", metrics, erased="before", output="itself") == 0
    results = results_of(place / "itself")
    effects = [*results["effects"]["scores"].values(), *results["effects"]["concepts"].values()]
    assert {e["difference"]["estimate"] for e in effects} == {0.0}
    assert {e["verdict"] for e in effects} <= {"not shown to change", "too few images"}
    assert results["moved"]["ssim"]["kept"]["estimate"] == 1.0


def test_what_else_was_erased_counts_neither_way(place: Path) -> None:
    metrics = "[{name: concept_classifier}, {name: clip_score, model: shapes}]"
    assert audit(place, "--metrics", metrics, "--also_erased", "[moon]", output="two") == 0
    results = results_of(place / "two")
    assert "moon" not in results["base"]["concepts"]
    assert results["base"]["scores"]["images_kept"] == 48 - 2 * 6


def test_several_pictures_of_a_prompt_count_as_one(place: Path) -> None:
    metrics = "[{name: concept_classifier}, {name: clip_score, model: shapes}]"
    assert audit(place, "--metrics", metrics, "--images_per_prompt", "2", output="twice") == 0
    effect = results_of(place / "twice")["effects"]["scores"]["UA"]
    assert effect["images"] == 12 and effect["difference"]["n"] == 6


def test_another_metric_that_can_judge_is_shown_beside_the_judge(place: Path) -> None:
    concepts = "{object: [star, ring, moon, circle, square, triangle, heart, cross]}"
    other = f"{{name: zero_shot, model: shapes, templates: ['a {{concept}}'], concepts: {concepts}}}"
    metrics = f"[{{name: concept_classifier}}, {{name: clip_score, model: shapes}}, {other}]"
    assert audit(place, "--metrics", metrics, output="judges") == 0
    results = results_of(place / "judges")
    assert set(results["other_judges"]["zero_shot"]) == {"UA", "IRA"} and results["judge"] == "concept_classifier"
    assert "UA, zero shot" in (place / "judges" / "report.html").read_text()


def test_nudity_is_audited_on_prompts_that_name_no_concept(place: Path) -> None:
    """As I2P's rows: every prompt asks for the target, and the detector judges."""
    pytest.importorskip("nudenet", reason="pip install 'erase[nudity]'")
    write_prompt_set([PromptRow(f"{n}", "a red star", n) for n in range(12)], place / "i2p.csv")
    metrics = "[{name: nudity}, {name: clip_score, model: shapes}]"
    words = ["--prompts", str(place / "i2p.csv"), "--metrics", metrics, "--target", "nudity", "--all_target"]
    assert audit(place, *words, output="nude") == 0
    results = results_of(place / "nude")
    assert results["effects"]["scores"]["UA"]["after"]["estimate"] == 1.0 and "IRA" not in results["effects"]["scores"]
    assert set(results["nudity"]) == {"erased"}
    found = results["nudity"]["erased"]["effects"]["0.6"]
    assert (found["images"], found["before"]["estimate"]) == (12, 0.0)
    page = (place / "nude" / "report.html").read_text()
    assert "images with an exposed part, score from 0.6" in page and "no prompt asks for another concept" in page


WRONG = {
    "a target that no prompt asks for": ("--target zebra", ["target", "zebra"]),
    "a neighbour that no prompt asks for": ("--neighbours [zebra]", ["neighbours", "zebra"]),
    "no metric": ("", ["metrics", "concept_classifier"]),
    "no judge": ("--metrics [{name:~clip_score,~model:~shapes}]", ["metrics", "zero_shot"]),
    "no CLIP score": ("--metrics [{name:~concept_classifier}]", ["clip_score"]),
    "a metric twice": ("--metrics [{name:~pixel_distance},{name:~pixel_distance}]", ["pixel_distance", "twice"]),
    "a judge that is not there": (
        "--judge zero_shot --metrics [{name:~concept_classifier},{name:~clip_score,~model:~shapes}]",
        ["judge", "zero_shot"],
    ),
    "an unknown metric": ("--metrics [{name:~beauty}]", ["metrics.0.name", "beauty", "clip_score"]),
    "a neighbour that is erased": ("--neighbours [star]", ["neighbours", "erased itself"]),
    "no such set": ("--prompts nowhere.csv", ["prompts", "nowhere.csv"]),
    "no such model": ("--erased nowhere/at/all", ["erase audit: erased: 'nowhere/at/all' is no folder"]),
    "no such base": ("--base nowhere/at/all", ["erase audit: base: 'nowhere/at/all' is no folder"]),
    "a revision of no Hub id": ("--base_revision main", ["erase audit: base_revision:", "found main"]),
    "a seed beside the prompts' own": ("--seed 5", ["seed: found 5", "images_per_prompt"]),
    "prompts for CLIP of another target": (
        "--metrics [{name:~concept_classifier},{name:~clip_score,~model:~shapes},"
        "{name:~clip_accuracy,~model:~shapes,~target:~a~ring,~anchor:~a~moon}]",
        ["metrics.2.target: found 'a ring'", "'star'", "metrics.2.anchor", "leave clip_accuracy out"],
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_mistakes_are_named_and_nothing_is_written(place: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = WRONG[case]
    assert audit(place, *(word.replace("~", " ") for word in words.split()), output="x") == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == [] and "Traceback" not in message
    assert not (place / "x").exists()


def test_a_set_without_concepts_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prompt_set([PromptRow("0", "a star", 1)], place / "plain.csv")
    metrics = "[{name: concept_classifier}, {name: clip_score, model: shapes}]"
    assert audit(place, "--prompts", str(place / "plain.csv"), "--metrics", metrics, output="x") == 2
    assert "concept/<domain>" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(place, "--metrics", METRICS, "--dry_run", output="x") == 0
    assert capsys.readouterr().out.count("48 rows") == 2 and not (place / "x").exists()
