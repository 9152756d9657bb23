"""The output folder: what a run may write to, and what is left when writing fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erase.errors import UserError
from erase.training.output import CONFIG, PROVENANCE, check_inputs_survive, check_output, open_output, write_result

SETTINGS: dict[str, Any] = {"seed": 0, "rate": 1e-5, "targets": [{"concept": "${star}"}], "output_dir": "x"}


def refused(folder: Path, overwrite: bool = False, resuming: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        check_output(folder, overwrite, resuming)
    return str(caught.value)


def run(folder: Path) -> Path:
    """What an earlier run left."""
    folder.mkdir()
    for name in (CONFIG, "steps.jsonl"):
        (folder / name).touch()
    return folder


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_absent_or_empty_may_be_written_to(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "run", overwrite=False, resuming=False)
    check_output(tmp_path, overwrite=False, resuming=False)
    assert list(tmp_path.iterdir()) == [], "nothing is written by the check"


def test_a_folder_with_something_in_it_is_refused_with_the_ways_on(tmp_path: Path) -> None:
    found = refused(run(tmp_path / "run"))
    assert found.startswith(f"output_dir: {tmp_path / 'run'} is not empty;")
    assert "--overwrite" in found and "--resume_from_checkpoint latest" in found


def test_an_earlier_run_may_be_overwritten_or_resumed(tmp_path: Path) -> None:
    check_output(run(tmp_path / "run"), overwrite=True, resuming=False)
    check_output(tmp_path / "run", overwrite=False, resuming=True)


@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml", "model_index.json"])
def test_what_is_no_earlier_run_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    found = refused(tmp_path, overwrite=True)
    assert found.endswith("holds no steps.jsonl, so it is no earlier run; it is not overwritten")


@pytest.mark.parametrize(("overwrite", "resuming"), [(False, False), (True, False), (False, True)])
def test_a_file_is_no_folder(tmp_path: Path, overwrite: bool, resuming: bool) -> None:
    (tmp_path / "run").touch()
    assert refused(tmp_path / "run", overwrite, resuming) == f"output_dir: {tmp_path / 'run'} is a file; give a folder"


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    found = refused(tmp_path / ("x" * 300))
    assert found.startswith("output_dir: ") and "cannot be a folder: File name too long" in found


def test_the_key_and_the_marker_are_the_callers(tmp_path: Path) -> None:
    (tmp_path / "erased").mkdir()
    check_output(tmp_path, True, False, "output", "erased")
    with pytest.raises(UserError, match=r"^output: .* is not empty"):
        check_output(tmp_path, False, False, "output", "erased")


def test_opening_writes_the_settings_as_they_are(tmp_path: Path) -> None:
    open_output(tmp_path / "new" / "run", overwrite=False, config=SETTINGS | {"targets": [{"concept": "star"}]})
    read = yaml.safe_load((tmp_path / "new" / "run" / CONFIG).read_text(encoding="utf-8"))
    assert read == SETTINGS | {"targets": [{"concept": "star"}]}


def test_opening_clears_an_earlier_run_only_when_told_to(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    open_output(folder, overwrite=False, config={"seed": 1})
    assert contents(folder) == {CONFIG, "steps.jsonl"}
    (folder / "old").touch()
    open_output(folder, overwrite=True, config={"seed": 1})
    assert contents(folder) == {CONFIG, "steps.jsonl"}


def test_the_folder_that_one_is_in_is_emptied_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run(tmp_path / "run"))
    Path("old").touch()
    open_output(Path("."), overwrite=True, config={"seed": 1})
    assert contents(tmp_path / "run") == {CONFIG, "steps.jsonl"}


def save(folder: Path) -> None:
    (folder / "unet").mkdir()
    (folder / "unet" / "weights").write_text("new", encoding="utf-8")
    (folder / "model_index.json").write_text("{}", encoding="utf-8")


def test_a_result_lands_beside_the_log_with_its_provenance(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    write_result(folder, save, {"erased": ["star"]})
    assert contents(folder) == {CONFIG, "steps.jsonl", "unet/weights", "model_index.json", PROVENANCE}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"unet"}


def test_a_result_replaces_an_earlier_one_whole(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    (folder / "unet").mkdir()
    (folder / "unet" / "old").touch()
    write_result(folder, save, {})
    assert "unet/old" not in contents(folder)
    assert (folder / "unet" / "weights").read_text(encoding="utf-8") == "new"


def test_a_full_disk_leaves_no_half_written_model(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        save(folder)
        raise OSError(28, "No space left on device")

    folder = run(tmp_path / "run")
    with pytest.raises(UserError, match=r"^output_dir: the model could not be written to .*No space left"):
        write_result(folder, full, {})
    assert contents(folder) == {CONFIG, "steps.jsonl"}
    assert not any(path.is_dir() for path in folder.iterdir())


def test_a_result_that_was_cut_off_is_written_anew(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    (folder / "result" / "vae").mkdir(parents=True)
    write_result(folder, save, {})
    assert contents(folder) == {CONFIG, "steps.jsonl", "unet/weights", "model_index.json", PROVENANCE}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"unet"}


def test_a_run_that_died_before_its_first_step_may_be_overwritten(tmp_path: Path) -> None:
    open_output(tmp_path / "run", False, SETTINGS)
    check_output(tmp_path / "run", overwrite=True, resuming=False)


def test_what_a_run_reads_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by another name of the folder; what is no file here may be a Hub id."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, list_of_ids = run(tmp_path / "run"), tmp_path / "run" / "forget.txt"
    list_of_ids.touch()
    inputs = {"model": "~/run", "forget.file": list_of_ids, "data.dataset": "owner/name", "mask.file": None}
    with pytest.raises(UserError) as caught:
        check_inputs_survive(folder, inputs | {"latents.cache_dir": folder / "latents"}, ["latents.cache_dir"])
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == ["model", "forget.file", "latents.cache_dir"]
    assert caught.value.problems[0].startswith(f"model: ~/run lies in output_dir {folder}, which --overwrite")
    check_inputs_survive(folder, {"model": tmp_path, "mask.file": folder / "not-there"})
