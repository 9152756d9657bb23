"""The notes of what was written, and whether they are true."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from erase.generation.records import (
    LEFTOVER,
    LOCK,
    Written,
    hash_file,
    is_empty,
    part_file,
    read_written,
    remove_leftovers,
    verified,
)


def written(folder: Path, name: str, content: bytes = b"pixels") -> Written:
    (folder / name).write_bytes(content)
    return Written(name, len(content), hashlib.sha256(content).hexdigest())


def test_a_large_file_is_hashed_without_being_held_in_memory(tmp_path: Path) -> None:
    file, size = tmp_path / "weights", 2**25
    file.touch()
    os.truncate(file, size)
    tracemalloc.start()
    found = hash_file(file)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == hashlib.sha256(bytes(size)).hexdigest() and most < size / 8


def test_a_note_reads_back_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    notes = [written(tmp_path, f"{i}.png") for i in range(3)]
    text = "".join(note.line() for note in notes)
    for length in range(len(text) + 1):
        (tmp_path / "part.jsonl").write_text(text[:length])
        whole = text[:length].count("\n") + (length < len(text) and text[length] == "\n")
        assert list(read_written(tmp_path / "part.jsonl")) == notes[:whole]


@pytest.mark.parametrize("junk", ["[]\n", "{}\n", "null\n", '{"file": "x"}\n', "\x00\x00\n", "\n"])
def test_a_line_that_is_no_note_is_left_out(tmp_path: Path, junk: str) -> None:
    note = written(tmp_path, "0.png")
    (tmp_path / "part.jsonl").write_text(junk + note.line())
    assert list(read_written(tmp_path / "part.jsonl")) == [note]


def test_no_file_is_no_note(tmp_path: Path) -> None:
    assert list(read_written(tmp_path / "none.jsonl")) == []


def test_a_flipped_a_cut_a_longer_and_a_missing_file_are_found(tmp_path: Path) -> None:
    notes = {name: written(tmp_path, name) for name in ("good", "flipped", "cut", "longer", "missing", "a_folder")}
    (tmp_path / "flipped").write_bytes(b"pixelr")
    (tmp_path / "cut").write_bytes(b"pix")
    (tmp_path / "longer").write_bytes(b"pixels!")
    (tmp_path / "missing").unlink()
    (tmp_path / "a_folder").unlink()
    (tmp_path / "a_folder").mkdir()
    assert verified(tmp_path, notes.values()) == {"good": notes["good"]}


def test_of_two_notes_of_a_file_the_true_one_counts(tmp_path: Path) -> None:
    old, new = written(tmp_path, "x.png", b"old"), written(tmp_path, "x.png", b"new")
    assert verified(tmp_path, [old, new]) == verified(tmp_path, [new, old]) == {"x.png": new}


def test_many_files_are_verified(tmp_path: Path) -> None:
    notes = [written(tmp_path, str(i), str(i).encode()) for i in range(600)]
    assert list(verified(tmp_path, notes).values()) == notes


def test_what_a_killed_process_was_writing_does_not_count_and_is_removed(tmp_path: Path) -> None:
    assert is_empty(tmp_path)
    assert is_empty(tmp_path / "nowhere")
    leftovers = [".generation.json.tmp123", ".00000_0.png.tmp9"]
    for name in leftovers:
        assert LEFTOVER.fullmatch(name)
        (tmp_path / name).write_text("half")
    assert is_empty(tmp_path)
    (tmp_path / LOCK).touch()
    assert is_empty(tmp_path), "killed before it wrote anything"
    (tmp_path / LOCK).unlink()
    (tmp_path / "x.tmp1").write_text("someone's")
    assert not is_empty(tmp_path)
    remove_leftovers(tmp_path, tmp_path / "nowhere")
    assert [file.name for file in tmp_path.iterdir()] == ["x.tmp1"]


def test_each_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert part_file(tmp_path, 3) == tmp_path / "parts" / "00003.jsonl"
    assert part_file(tmp_path, "done") == tmp_path / "parts" / "done.jsonl"
