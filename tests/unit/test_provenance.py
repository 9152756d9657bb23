"""Whole files or none, and hashes that notice a changed byte."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from erase import provenance
from erase.provenance import (
    beside,
    describe_environment,
    empty_folder,
    git_commit,
    hash_folder,
    hash_json,
    new_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def model(folder: Path) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(range(256)) * 8)
    (folder / "config.json").write_text('{"layers": 2}')
    return folder


def break_off(folder: Path, error: type[BaseException]) -> None:
    """Begins a new folder and raises halfway."""
    with new_folder(folder) as temporary:
        (temporary / "config.json").write_text("{")
        raise error


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_write_text_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    for text in ("first", "größer\n"):
        write_text(file, text)
        assert file.read_bytes().decode("utf-8") == text
    assert names(tmp_path) == ["run.txt"]


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new " * 10_000 + "\ud800")  # a lone surrogate: no UTF-8 holds it
    assert file.read_text() == "old"
    assert names(tmp_path) == ["run.txt"]


def test_an_interrupted_first_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "run.txt", "\ud800")
    assert names(tmp_path) == []


def test_a_failed_sync_to_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    file = tmp_path / "run.txt"
    write_text(file, "old")
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_text(file, "new")
    assert (file.read_text(), names(tmp_path)) == ("old", ["run.txt"])


def test_write_json_reads_back_with_its_keys_in_order(tmp_path: Path) -> None:
    value = {"z": 1, "a": [0.1, None, True], "ü": "é"}
    write_json(tmp_path / "run.json", value)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["z", "a", "ü"]
    assert "é" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [{"loss": float("nan")}, {"loss": float("inf")}, {"file": Path("x")}])
def test_write_json_refuses_what_json_cannot_hold_and_keeps_the_old_file(tmp_path: Path, value: object) -> None:
    file = tmp_path / "run.json"
    write_json(file, {"loss": 1.0})
    with pytest.raises((ValueError, TypeError)):
        write_json(file, value)
    assert json.loads(file.read_text()) == {"loss": 1.0}


def test_a_new_folder_appears_whole_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    with new_folder(folder) as temporary:
        model(temporary / "part")
        assert not folder.exists()
    assert (folder / "part" / "config.json").read_text() == '{"layers": 2}'
    assert names(folder.parent) == ["model"]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_new_folder_vanishes_if_the_body_raises(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        break_off(tmp_path / "model", error)
    assert names(tmp_path) == []


def test_an_existing_folder_is_untouched_if_the_body_raises(tmp_path: Path) -> None:
    old = model(tmp_path / "model")
    before = hash_folder(old)
    with pytest.raises(KeyError):
        break_off(old, KeyError)
    assert hash_folder(old) == before
    assert names(tmp_path) == ["model"]


def test_a_finished_folder_replaces_the_existing_one_with_no_file_of_it_left(tmp_path: Path) -> None:
    old = model(tmp_path / "model")
    with new_folder(old) as temporary:
        (temporary / "config.json").write_text("{}")
    assert names(old) == ["config.json"]
    assert names(tmp_path) == ["model"]


def test_a_place_beside_a_folder_has_its_name_whatever_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (run / "unet").mkdir(parents=True)
    assert beside(Path("runs/star"), "-audit") == Path("runs/star-audit")
    monkeypatch.chdir(run)
    assert beside(Path("."), "-audit") == tmp_path / "run-audit"
    monkeypatch.chdir(run / "unet")
    assert beside(Path(".."), "-audit") == tmp_path / "run-audit"


def test_emptying_leaves_the_folder_what_is_kept_and_what_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    folder = model(tmp_path / "run")
    (folder / "link").symlink_to(tmp_path / "other")
    (tmp_path / "also").symlink_to(folder)
    empty_folder(tmp_path / "also", keep=("config.json",))
    assert names(folder) == ["config.json"] and names(tmp_path) == ["also", "other", "run"]
    assert names(tmp_path / "other") == ["x"]


def test_the_hash_of_a_folder_changes_with_any_byte_of_a_weight(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    file = folder / "unet" / "weights.safetensors"
    whole, original = file.read_bytes(), hash_folder(folder)
    for position in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        file.write_bytes(changed)
        assert hash_folder(folder) != original
    file.write_bytes(whole)
    assert hash_folder(folder) == original


def test_the_hash_of_a_folder_changes_with_a_setting_or_a_file_name(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    hashes = {hash_folder(folder)}
    (folder / "config.json").write_text('{"layers": 3}')
    hashes.add(hash_folder(folder))
    (folder / "config.json").rename(folder / "settings.json")
    hashes.add(hash_folder(folder))
    assert len(hashes) == 3


def test_the_hash_of_a_folder_depends_on_neither_its_place_nor_other_files(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a"), model(tmp_path / "b" / "c")
    (second / "README.md").write_text("words")
    assert hash_folder(first) == hash_folder(second)


def test_the_hash_of_json_is_the_sha256_of_its_sorted_text() -> None:
    # printf '{"a": 1, "b": "é"}' | sha256sum
    expected = "72098b2a2208bcd8cda44c39c3aa422be996b505ae0f32eae54f5da06d5ecfd4"
    assert hash_json({"b": "é", "a": 1}) == hash_json({"a": 1, "b": "é"}) == expected
    assert hash_json({"a": 1, "b": "e"}) != expected


def test_the_environment_fits_in_json_and_names_each_library() -> None:
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert set(found["libraries"]) == set(provenance.LIBRARIES)
    assert found["libraries"]["torch"]


def test_the_commit_is_that_of_the_checkout_and_says_when_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    source = tmp_path / "package" / "module.py"
    source.parent.mkdir()
    source.write_text("1\n")
    monkeypatch.setattr(provenance, "__file__", str(source))
    assert git_commit() is None  # no checkout
    git(tmp_path, "init", "--quiet")
    assert git_commit() is None  # a checkout without a commit
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    clean = git_commit()
    assert re.fullmatch("[0-9a-f]{40}", clean or "")
    source.write_text("2\n")
    assert git_commit() == f"{clean}+changes"
