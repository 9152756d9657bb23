"""`pipelines/erase_concept.py`: a run and its audits, one for each target, on the same pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from erase import embedded
from erase.config import load
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import vocabulary_set
from erase.generation.run import Stopped
from erase.training.erasure import ErasureRun
from pipelines import erase_concept

SHORT = ["--max_train_steps", "1", "--latents.forget", "2", "--latents.retain", "4", "--latents.neutral", "0"]
SHORT += ["--latents.steps", "1", "--train_batch_size", "2", "--probe_every", "0"]


def go(patch: pytest.MonkeyPatch, *words: str) -> int:
    torch.set_num_threads(1)
    patch.setattr(sys, "argv", ["erase_concept.py", *words])
    return erase_concept.main()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of two targets, one step, and an audit of few prompts."""
    folder = tmp_path_factory.mktemp("concept")
    rows = vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=1)[::10]
    write_prompt_set(rows, folder / "set.csv")
    targets = "targets: [{concept: star}, {concept: moon}]"
    (folder / "run.yaml").write_text(f"model: shapes\n{targets}\nforget_loss: {{name: negative_guidance}}\n")
    metrics = "[{name: concept_classifier}, {name: clip_score, model: shapes}]"
    sampling = "num_inference_steps: 1\nguidance_scale: 2\nbatch_size: 12"
    (folder / "audit.yaml").write_text(f"prompts: {folder / 'set.csv'}\n{sampling}\nmetrics: {metrics}\n")
    cache = ["--latents.cache_dir", str(folder / "cache")]
    files = ["--config", str(folder / "run.yaml"), "--audit", str(folder / "audit.yaml")]
    return [*files, "--output_dir", str(folder / "run"), *SHORT, *cache]


def test_each_target_has_its_audit_and_a_second_go_trains_nothing(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch, *words) == 0, capsys.readouterr().err
    place = Path(words[words.index("--output_dir") + 1])
    audits = Path(f"{place}-audit")
    for target, other in (("star", "moon"), ("moon", "star")):
        results = json.loads((audits / target / "results.json").read_text())
        assert (results["target"], results["also_erased"]) == (target, [other])
        assert other not in results["base"]["concepts"] and results["training"]["update"]["name"] == "lur"
        assert (audits / target / "report.html").is_file()
    assert sorted(folder.name for folder in (audits / "images").iterdir()) == ["base", "erased"]
    made = (place / "provenance.json").read_bytes()
    capsys.readouterr()
    assert go(monkeypatch, *words) == 0
    assert "denoiser evaluations" not in capsys.readouterr().out and (place / "provenance.json").read_bytes() == made


def test_an_audit_that_is_stopped_goes_on_with_the_model_that_is_there(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise Stopped("3 of 9 images")

    assert go(monkeypatch, *words) == 0
    monkeypatch.setattr(erase_concept, "run_audit", stopped)
    assert go(monkeypatch, *words) == 128
    assert "without --overwrite and --resume_from_checkpoint" in capsys.readouterr().err


def test_a_run_of_other_settings_is_not_audited_as_this_one(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch, *words) == 0
    assert go(monkeypatch, *words, "--learning_rate", "0.5") == 2
    assert "learning_rate" in (message := capsys.readouterr().err) and "output_dir" in message


def test_the_audit_of_the_working_directory_lies_beside_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = load(ErasureRun, Path(words[1]), ["output_dir=.", "targets=[{concept: star}]"])
    (audit,) = erase_concept.audits(run, {})
    assert audit.output_dir == tmp_path.with_name(f"{tmp_path.name}-audit")


def test_the_audit_is_of_this_run_whatever_its_yaml_names(words: list[str]) -> None:
    """As configs/audit has them: a YAML that is used by itself names a model, a target and perhaps a folder."""
    run = load(ErasureRun, Path(words[1]), ["output_dir=runs/mine", "targets=[{concept: star}]"])
    given = {
        "erased": "runs/other",
        "erased_revision": "main",
        "also_erased": ["red"],
        "output_dir": "runs/other-audit",
    }
    (audit,) = erase_concept.audits(run, given | {"base": "owner/other", "target": "nude", "nearest": 2})
    assert (audit.base, audit.erased, audit.erased_revision) == ("shapes", "runs/mine", None)
    assert (audit.also_erased, audit.output_dir) == ((), Path("runs/mine-audit"))
    assert (audit.target, audit.nearest) == ("nude", 2), "what the YAML may say"


def test_what_this_script_cannot_do_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(words[3])
    one = file.with_name("one.yaml")
    one.write_text(file.read_text() + "target: star\n")
    assert go(monkeypatch, *words, "--audit", str(one)) == 2
    assert "target: 'star', and the run has several" in capsys.readouterr().err
    assert go(monkeypatch, *words, "--push_to_hub", "true", "--hub_model_id", "me/x") == 2
    assert "push_to_hub: found true" in capsys.readouterr().err
