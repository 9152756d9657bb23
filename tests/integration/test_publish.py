"""`erase publish` from a run to a Hub on 127.0.0.1, and back: plain diffusers draws the run's own pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard, metadata_load
from PIL import Image
from safetensors.torch import load_file

from erase import embedded
from erase.audit import main as audit
from erase.config import differences, dump, load
from erase.diffusion.concepts import Target
from erase.errors import UserError
from erase.generation.folder import open_folder
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import vocabulary_set
from erase.publication.destination import ENDINGS, Destination
from erase.publication.evidence import Evidence
from erase.publication.publisher import check_before_training
from erase.publish import main
from erase.training.erasure import ErasureRun
from erase.training.settings import FREE_ON_RESUME
from tests.hub_client import TOKEN, client
from tests.hub_server import HubServer, hub
from tests.hub_state import Fault, State, User
from tests.launch import pictures

REPO = "me/sd-without-star"
COMMAND = "import sys; from erase.cli import main; sys.exit(main(sys.argv[1:]))"
METRICS = "[{name: concept_classifier}, {name: clip_score, model: shapes}]"
DRAW = """
import sys, torch
torch.set_num_threads(1)
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from tests.launch import pictures
save_file({"pictures": pictures(DiffusionPipeline.from_pretrained(sys.argv[1])).contiguous()}, sys.argv[2])
"""


@pytest.fixture(scope="module")
def evidence(place: Path, model: Path) -> Path:
    """An audit of the run, six prompts of each object."""
    write_prompt_set(vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=3)[::5], place / "set.csv")
    given = {"base": model, "erased": place / "run", "target": "star", "prompts": place / "set.csv"}
    given |= {"num_inference_steps": 1, "batch_size": 16, "output_dir": place / "audit", "metrics": METRICS}
    assert audit([text for key, value in given.items() for text in (f"--{key}", str(value))]) == 0
    return place / "audit"


def publish(server: HubServer, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return client(server, folder, COMMAND, "publish", *words, **more)


def local(place: Path, folder: Path, *words: str) -> int:
    """`--local_dir` in this process."""
    return main([str(place / "run"), "--repo_id", REPO, "--local_dir", str(folder), *words])


@pytest.fixture(scope="module")
def written(place: Path, evidence: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as a folder, with its audit and two further formats."""
    folder = tmp_path_factory.mktemp("local") / "repository"
    assert local(place, folder, "--audit", str(evidence), "--formats", "[delta, unet]") == 0
    return folder


@pytest.fixture(scope="module")
def sent(place: Path, evidence: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, Path]]:
    """The Hub, after a connection that was cut in every file and a second run; and the run."""
    folder = tmp_path_factory.mktemp("sent")
    run = shutil.copytree(place / "run", folder / "run")
    words = [str(run), "--repo_id", REPO, "--audit", str(evidence)]
    with hub(State({TOKEN: User("me")}, chunk=100_000)) as server:
        server.state.faults = [Fault("PUT /lfs", "cut", times=1000)]
        failed = publish(server, folder, *words)
        assert failed.returncode == 2 and "no connection" in failed.stderr and "Traceback" not in failed.stderr
        assert set(server.state.repos[REPO].at("main").files) == {".gitattributes"}
        assert not (run / "published.json").exists() and not list(run.glob(".publishing*"))
        server.state.faults = []
        done = publish(server, folder, *words)
        assert done.returncode == 0, done.stderr
        (folder / "said").write_text(done.stdout + done.stderr)
        yield server, run


@pytest.mark.slow
def test_the_commit_is_printed_and_recorded(sent: tuple[HubServer, Path]) -> None:
    server, run = sent
    record, said = json.loads((run / "published.json").read_text()), (run.parent / "said").read_text()
    assert record["commit_url"] in said and record["commit"] == server.state.repos[REPO].refs["main"]
    assert len(server.state.repos[REPO].commits) == 2 and server.state.count("PUT /lfs/part") > 0
    assert set(record["files"]) == set(server.state.repos[REPO].at("main").files) - {".gitattributes"}
    assert TOKEN not in said + json.dumps(record)


@pytest.mark.slow
def test_plain_diffusers_draws_the_run_s_own_pictures(sent: tuple[HubServer, Path], tmp_path: Path) -> None:
    server, run = sent
    drawn = client(server, tmp_path, DRAW, REPO, str(tmp_path / "drawn.safetensors"), token=None)
    assert drawn.returncode == 0, drawn.stderr
    there = load_file(tmp_path / "drawn.safetensors")["pictures"]
    assert torch.equal(there, pictures(StableDiffusionPipeline.from_pretrained(run)))
    base = StableDiffusionPipeline.from_pretrained(made_by(run)["base"]["model"])
    assert not torch.equal(there, pictures(base))


@pytest.mark.slow
def test_the_snippet_of_the_card_runs(sent: tuple[HubServer, Path], tmp_path: Path) -> None:
    server, _ = sent
    card = server.state.repos[REPO].at("main").files["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = client(server, tmp_path, snippet, token=None)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (16, 16)


def made_by(run: Path) -> Any:
    return json.loads((run / "provenance.json").read_text())


def test_the_folder_holds_the_pipeline_the_formats_and_the_evidence(written: Path) -> None:
    names = {file.relative_to(written).as_posix() for file in written.rglob("*") if file.is_file()}
    facts = {"README.md", "results.json", "provenance.json", "config.yaml", "before_after.png", "model_index.json"}
    assert facts < names and "unet/diffusion_pytorch_model.safetensors" in names
    assert {name.split("/")[1] for name in names if name.startswith("formats/")} == {"delta", "unet"}
    assert {Path(name).suffix for name in names} <= set(ENDINGS)


def test_the_settings_are_those_that_a_reader_needs_to_make_it_again(place: Path, written: Path) -> None:
    """As the card says: its own folders, no checkpoint to go on from, nothing to publish."""
    made = made_by(place / "run")["config"]
    assert made["latents"]["cache_dir"] and "cache_dir" not in (written / "config.yaml").read_text()
    again = dump(load(ErasureRun, written / "config.yaml", ["output_dir=runs/again"]))
    default = dump(ErasureRun(targets=(Target(concept="star"),), output_dir=Path("runs/again")))
    own = ("output_dir", "overwrite", "resume_from_checkpoint", "report_to", "push_to_hub", "hub_model_id")
    assert [again[key] for key in own] == [default[key] for key in own]
    free = (*FREE_ON_RESUME, "model")  # a folder of this machine
    assert [line for line in differences(made, again) if not line.startswith(free)] == []


def test_the_card_is_read_back_by_huggingface_hub(written: Path, evidence: Path) -> None:
    card = ModelCard.load(written / "README.md")
    scores = json.loads((evidence / "results.json").read_text())["effects"]["scores"]
    found = {result.metric_type: result for result in card.data.eval_results}
    assert set(found) == {key for key in scores if not key.startswith("none")}
    for key, result in found.items():
        after = scores[key]["after"]
        assert result.metric_value == after["estimate"]
        assert (result.metric_args["low"], result.metric_args["high"]) == (after["low"], after["high"])
    data = card.data.to_dict()
    assert data["model-index"][0]["name"] == "sd-without-star" and metadata_load(written / "README.md") == data
    assert "license" not in data and "not known" in card.text


def test_the_grid_shows_the_audit_s_own_pictures(written: Path, evidence: Path) -> None:
    grid = pixels(written / "before_after.png")
    assert grid.shape == (2 * 192 + 4, 8 * 196 - 4, 3)
    for row, side in enumerate(("base", "erased")):
        pictures = open_folder(evidence / "images" / side).pictures
        star = next(picture.file for picture in pictures if picture.concepts["object"] == "star")
        assert (grid[196 * row : 196 * row + 192 : 12, :192:12] == pixels(star)).all()


def test_pictures_that_the_audit_did_not_judge_are_not_shown(evidence: Path, tmp_path: Path) -> None:
    """Those of an earlier audit stay in its folder when the next one keeps its own elsewhere."""
    results = json.loads((evidence / "results.json").read_text())
    assert Evidence(evidence, results).pairs()
    for change in (
        {"erased": results["erased"] | {"hash": "other weights"}},
        {"prompts": results["prompts"] | {"hash": "other prompts"}},
        {"prompts": results["prompts"] | {"images_per_prompt": 2}},
        {"sampling": results["sampling"] | {"steps": 50}},
    ):
        assert Evidence(evidence, results | change).pairs() == []
    assert Evidence(tmp_path, results).pairs() == []


def pixels(file: Path) -> Any:
    with Image.open(file) as picture:
        return np.asarray(picture)


def test_no_text_says_where_it_was_made_or_by_whom(
    place: Path, evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model, the prompts and the audit lie in folders of this machine; the user's name is one of them."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("LOGNAME", place.name)
    run = shutil.copytree(place / "run", tmp_path / "run")
    made = made_by(run)
    made["environment"]["command"] += ["--note", f"see {Path.home()}/notes.txt, {TOKEN}", f"{place}/x y.csv"]
    (run / "provenance.json").write_text(json.dumps(made))
    words = [str(run), "--repo_id", REPO, "--local_dir", str(tmp_path / "out"), "--audit", str(evidence)]
    assert main(words) == 0
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in (str(place), str(tmp_path), f"{Path.home()}/", TOKEN, f"/{place.name}/"):
                assert secret.encode() not in content, f"{file.name}: {secret}"


def test_without_an_audit_the_card_says_so_and_claims_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    words = ["--repo_id", REPO, "--local_dir", str(tmp_path / "out"), "--license", "openrail++"]
    assert main([str(run), *words]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    data = metadata_load(tmp_path / "out" / "README.md")
    assert data is not None and "model-index" not in data and data["license"] == "openrail++"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "No audit is published with this model" in text and "%" not in text
    assert not (tmp_path / "out" / "results.json").exists()
    assert main([str(run), *words]) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([str(run), *words, "--overwrite"]) == 0


def test_a_run_that_is_the_working_directory_has_its_audit_beside_it(
    place: Path, evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(evidence, tmp_path / "run-audit")
    monkeypatch.chdir(shutil.copytree(place / "run", tmp_path / "run"))
    assert main([".", "--repo_id", REPO, "--local_dir", "../out"]) == 0
    assert (tmp_path / "out" / "results.json").is_file()
    monkeypatch.chdir(tmp_path / "out")
    assert main([str(tmp_path / "run"), "--repo_id", REPO, "--local_dir", ".", "--overwrite"]) == 2
    assert "local_dir: . holds the working directory" in capsys.readouterr().err


def test_audits_of_several_targets_are_not_denied(
    place: Path, evidence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As erase_concept.py leaves them: a folder of each target, and the pictures beside these."""
    run, audits = shutil.copytree(place / "run", tmp_path / "run"), tmp_path / "run-audit"
    for target in ("moon", "star"):
        shutil.copytree(evidence, audits / target, ignore=shutil.ignore_patterns("images"))
    shutil.copytree(evidence / "images", audits / "images")
    words = [str(run), "--repo_id", REPO, "--local_dir", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"audit: {run} has {audits / 'moon'}, {audits / 'star'}" in said and "give it with --audit" in said
    with pytest.raises(UserError, match="audit of an earlier run"):
        check_before_training(run, Destination(REPO))
    assert main([*words, "--audit", str(audits / "star")]) == 0
    assert (tmp_path / "out" / "before_after.png").is_file()


def test_an_audit_of_other_weights_or_of_another_base_is_refused(
    place: Path, evidence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(evidence, tmp_path / "audit")
    for side, said in (("erased", "other weights"), ("base", "another base")):
        results = json.loads((evidence / "results.json").read_text())
        results[side]["hash"] = "0" * 64
        (other / "results.json").write_text(json.dumps(results))
        assert local(place, tmp_path / "out", "--audit", str(other)) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_is_private_in_the_runs_own_files_is_not_published(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/srv/users/alice")
    run = shutil.copytree(place / "run", tmp_path / "run")
    index = json.loads((run / "model_index.json").read_text())
    (run / "model_index.json").write_text(json.dumps(index | {"_note": "/srv/users/alice/x"}))
    words = [str(run), "--repo_id", REPO, "--local_dir", str(tmp_path / "out")]
    assert main(words) == 2
    assert "model_index.json: it would publish a path of this machine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


WRONG = {
    "no run": (["--run", "nowhere"], ["run: nowhere"]),
    "a name without an owner": (["--repo_id", "model"], ["repo_id", "OWNER/NAME"]),
    "a path for a name": (["--repo_id", "../etc"], ["repo_id", "../etc"]),
    "a branch that climbs": (["--revision", "../main"], ["revision", "../main"]),
    "a branch and a pull request": (["--revision", "dev", "--create_pr"], ["revision", "create_pr"]),
    "an adapter of a full run": (["--formats", "[kohya]"], ["formats", "kohya", "delta"]),
    "a format that is unknown": (["--formats", "[ckpt]"], ["formats.0", "ckpt"]),
    "no audit there": (["--audit", "nowhere"], ["audit: nowhere"]),
    "a token": (["--token", TOKEN], ["token: unknown key"]),
    "another's token": (["--hub_token", "sk-1234"], ["hub_token: unknown key"]),
    "a token for a value": (["--private", TOKEN], ["private: found '[token]'"]),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_mistakes_are_named_and_nothing_is_written(
    place: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = WRONG[case]
    given = ["--run", str(place / "run"), "--repo_id", REPO, "--local_dir", str(tmp_path / "out"), *words]
    assert main(given) == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == [] and "Traceback" not in message
    assert TOKEN not in message and "sk-1234" not in message
    assert list(tmp_path.iterdir()) == []


def test_pickles_are_left_behind_and_code_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    (run / "unet" / "x.bin").write_bytes(b"")
    words = [str(run), "--repo_id", REPO, "--overwrite", "--local_dir", str(tmp_path / "out")]
    assert main(words) == 0
    assert {file.suffix for file in (tmp_path / "out").rglob("*") if file.is_file()} <= set(ENDINGS)
    (run / "unet" / "code.py").write_text("")
    assert main(words) == 2 and "code.py" in capsys.readouterr().err
