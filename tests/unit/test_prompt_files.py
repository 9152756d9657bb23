"""Prompts from CSV files: what spreadsheets write is read, what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erase.errors import UserError
from erase.prompt_files import read_prompts, read_rows


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "prompts.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return file


def refused(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_prompts(file, "retain.prompts_file")
    (message,) = caught.value.problems
    assert message.startswith(f"retain.prompts_file: {file}")
    return message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("prompt\na cat\na dog\n", ["a cat", "a dog"]),
        ("prompt\r\na cat\r\na dog\r\n", ["a cat", "a dog"]),
        ("prompt\na cat", ["a cat"]),
        ("\ufeffprompt,seed\na cat,1\n", ["a cat"]),
        ('prompt\n"a cat,\non a mat"\n', ["a cat,\non a mat"]),
        ('prompt\n"a ""big"" cat"\n', ['a "big" cat']),
        ("case_number,prompt,seed\n0,a cat,1\n1,a dog,2\n", ["a cat", "a dog"]),
        (" prompt ,seed\n  a cat  ,1\n", ["a cat"]),
        ("prompt\na cat\na dog\na cat\n", ["a cat", "a dog"]),
        ("prompt\nune étoile ☆\n", ["une étoile ☆"]),
        ("prompt,seed\na cat\n", ["a cat"]),
    ],
    ids=[
        "unix",
        "windows",
        "cut",
        "mark",
        "newline",
        "quotes",
        "columns",
        "spaces",
        "repeat",
        "accents",
        "short",
    ],
)
def test_prompts_are_read_in_order_and_once(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert read_prompts(written(tmp_path, content), "key") == expected


@pytest.mark.parametrize(
    ("header", "expected"), [("caption,x", "one"), ("text,x", "one"), ("text,prompt", "two"), ("text,caption", "two")]
)
def test_the_column_goes_by_several_names_and_prompt_comes_first(tmp_path: Path, header: str, expected: str) -> None:
    assert read_prompts(written(tmp_path, f"{header}\none,two\n"), "key") == [expected]


def test_a_missing_column_lists_those_that_there_are(tmp_path: Path) -> None:
    found = refused(written(tmp_path, "id,sentence\n1,a cat\n"))
    assert found.endswith("has the columns id, sentence; one named `prompt` is needed")


@pytest.mark.parametrize("content", ["", "prompt\n", "\ufeff", "\n\n"])
def test_a_file_without_rows_says_what_is_needed(tmp_path: Path, content: str) -> None:
    assert refused(written(tmp_path, content)).endswith("holds no rows; a header and one row at least are needed")


def test_rows_without_a_prompt_are_numbered_from_1(tmp_path: Path) -> None:
    found = refused(written(tmp_path, "prompt,seed\na cat,1\n,2\n   ,3\na dog,4\n"))
    assert found.endswith("row 2, 3 has no prompt")


def test_a_row_that_ends_before_its_prompt_is_numbered_too(tmp_path: Path) -> None:
    assert refused(written(tmp_path, "seed,prompt\n1,a cat\n2\n")).endswith("row 2 has no prompt")


def test_a_first_row_that_ends_before_its_prompt_is_not_a_missing_column(tmp_path: Path) -> None:
    assert refused(written(tmp_path, "seed,prompt\n2\n1,a cat\n")).endswith("row 1 has no prompt")


def test_a_missing_file_a_folder_and_a_binary_file_are_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.csv").endswith("there is no such file")
    assert "cannot be read as a UTF-8 CSV" in refused(tmp_path)
    assert "cannot be read as a UTF-8 CSV" in refused(written(tmp_path, b"prompt\n\xff\xfe\n"))
    assert "cannot be read as a UTF-8 CSV" in refused(written(tmp_path, 'prompt\n"a cat\n'))


def test_rows_keep_every_column(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "prompt,evaluation_seed\na cat,7\na dog\n"), "key")
    assert rows == [{"prompt": "a cat", "evaluation_seed": "7"}, {"prompt": "a dog"}]


@pytest.mark.parametrize("read", [read_rows, read_prompts])
def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path, read: Any) -> None:
    """A comma without quotes would cut the prompt; an empty cell too many cuts nothing."""
    file = written(tmp_path, "prompt,seed\na cat,1\na cat, on a mat,2\na dog,3,\n")
    with pytest.raises(UserError, match="row 2 has more cells than the header; put quotes around"):
        read(file, "key")
    file.write_text('prompt,seed\na cat,1\n"a cat, on a mat",2\na dog,3,\n')
    assert read_prompts(file, "key") == ["a cat", "a cat, on a mat", "a dog"]
