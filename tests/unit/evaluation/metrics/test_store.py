"""Score tables on the disk: read back equal, reused only if nothing that shapes them changed, never half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erase.errors import UserError
from erase.evaluation.metrics.store import ScoreTable, load_scores, read_scores, write_scores

IDENTITY: dict[str, Any] = {"library": "x", "version": "1", "thresholds": [0.2, 0.5], "nested": {"a": None}}
COLUMNS: dict[str, list[Any]] = {
    "case_number": ["00000", "00001"],
    "k": [0, 0],
    "sha256": ["aa", "bb"],
    "clip_score": [31.25, -1.5],
    "seen/object": ["star", "none"],
    "rank/object": [1, None],
    "clipped": [False, True],
}
TABLE = ScoreTable("clip_score", IDENTITY, COLUMNS)


def test_a_table_is_read_back_equal_with_its_identity_in_the_schema(tmp_path: Path) -> None:
    file = tmp_path / "scores" / "base" / "clip_score.parquet"
    write_scores(file, TABLE)
    assert read_scores(file) == TABLE
    described = json.loads(pq.read_schema(file).metadata[b"erase"])
    assert described == {"format": 1, "metric": "clip_score", "identity": IDENTITY}
    assert [entry.name for entry in file.parent.iterdir()] == ["clip_score.parquet"]


@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20), words=st.text(max_size=20))
def test_every_number_and_word_survives(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], words: str
) -> None:
    file = tmp_path_factory.mktemp("t") / "x.parquet"
    keys: dict[str, list[Any]] = {name: [0] * len(values) for name in ("case_number", "k", "sha256")}
    table = ScoreTable("m", {"prompt": words}, {**keys, "value": values, "text": [words] * len(values)})
    write_scores(file, table)
    assert read_scores(file) == table


def test_scores_are_used_again_only_of_the_same_identity_and_images(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    assert load_scores(file, IDENTITY, ["aa", "bb"]) is None
    write_scores(file, TABLE)
    assert load_scores(file, IDENTITY, ["aa", "bb"]) == TABLE
    assert load_scores(file, IDENTITY | {"version": "2"}, ["aa", "bb"]) is None
    assert load_scores(file, IDENTITY | {"more": 1}, ["aa", "bb"]) is None
    for hashes in (["aa"], ["bb", "aa"], ["aa", "cc"], ["aa", "bb", "cc"]):
        assert load_scores(file, IDENTITY, hashes) is None
    assert load_scores(file, IDENTITY | {"thresholds": (0.2, 0.5)}, ["aa", "bb"]) == TABLE  # JSON knows no tuple


@pytest.mark.parametrize("length", [0, 10, 400])
def test_a_torn_file_is_measured_again_and_named_if_it_is_asked_for(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x.parquet"
    write_scores(file, TABLE)
    file.write_bytes(file.read_bytes()[:length])
    assert load_scores(file, IDENTITY, ["aa", "bb"]) is None
    with pytest.raises(UserError, match=r"x.parquet: cannot be read as scores: .*; delete it and measure again"):
        read_scores(file)


def test_a_file_that_is_no_score_table_or_is_missing_is_an_error(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="cannot be read as scores"):
        read_scores(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="there is no such file"):
        read_scores(tmp_path / "none.parquet")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.parquet"
    write_scores(file, TABLE)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_scores(file, ScoreTable("clip_score", {}, COLUMNS))
    assert read_scores(file) == TABLE
    assert len(list(tmp_path.iterdir())) == 1


def test_columns_must_be_whole_and_a_wrong_name_lists_those_that_are_there() -> None:
    assert TABLE.column("k") == [0, 0] and len(TABLE) == 2 and TABLE.hashes == ["aa", "bb"]
    with pytest.raises(UserError, match=r"no column 'clip'; it has case_number, k, sha256, clip_score"):
        TABLE.column("clip")
    with pytest.raises(ValueError, match="all must be equal"):
        ScoreTable("m", {}, COLUMNS | {"short": [1]})
    with pytest.raises(ValueError, match="sha256 there"):
        ScoreTable("m", {}, {"case_number": [], "k": []})
