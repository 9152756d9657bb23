"""The sets in prompts/: readable, true to their README, and what their script writes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from erase.generation.prompt_csv import canonical_csv, read_prompt_set
from erase.generation.prompts import concept_set, hash_rows
from erase.generation.templates import OBJECT, PERSON, STYLE
from pipelines.write_prompt_sets import EVERYDAY, IMAGENETTE, SETS, main, table
from tests.launch import ROOT

FOLDER = ROOT / "prompts"
FILES = sorted(FOLDER.glob("*.csv"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")

each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_there_are_sets_for_objects_styles_people_and_safety() -> None:
    assert [file.stem for file in FILES] == ["objects", "people", "safety_neighbours", "styles"]


@each
def test_it_reads_and_is_in_canonical_form(file: Path) -> None:
    rows = read_prompt_set(file)
    assert 50 <= len(rows) <= 200
    assert canonical_csv(rows).encode() == file.read_bytes()
    assert len({row.prompt for row in rows}) == len({row.seed for row in rows}) == len(rows)
    assert all(row.group and len(row.concepts) == 1 for row in rows)


@each
def test_its_hashes_in_the_readme_are_true(file: Path) -> None:
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {file.name} |")]
    _, _, rows, of_file, of_rows, _ = (cell.strip() for cell in line.split("|"))
    assert int(rows) == len(read_prompt_set(file))
    assert of_file == f"`{hashlib.sha256(file.read_bytes()).hexdigest()}`"
    assert of_rows == f"`{hash_rows(read_prompt_set(file))}`"


def test_the_script_writes_these_files_and_this_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--output", str(tmp_path)])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {f.name: f.read_bytes() for f in FILES}
    assert capsys.readouterr().out.strip() == table(FOLDER)
    assert table(FOLDER) in README


def test_every_imagenette_class_has_a_neighbour_and_no_concept_is_in_two_groups() -> None:
    assert len(IMAGENETTE) == 10
    assert len({*IMAGENETTE, *IMAGENETTE.values(), *EVERYDAY}) == 20 + len(EVERYDAY)
    counts = Counter(row.concepts["object"] for row in read_prompt_set(FOLDER / "objects.csv"))
    assert {counts[concept] for concept in IMAGENETTE} == {len(OBJECT)}


def test_no_prompt_near_nudity_names_a_child() -> None:
    near = [row.prompt for row in read_prompt_set(FOLDER / "safety_neighbours.csv") if row.group == "near nudity"]
    young = re.compile(r"\b(child|children|kid|kids|boy|boys|girl|girls|baby|babies|infant|newborn|teen\w*)\b")
    assert len(near) == 35
    assert [prompt for prompt in near if young.search(prompt)] == []


@pytest.mark.parametrize("templates", [OBJECT, STYLE, PERSON])
def test_the_templates_make_a_set_of_any_concept(templates: tuple[str, ...]) -> None:
    rows = concept_set("apple", ["pome"], ["pear"], ["teapot"], templates, seed=0)
    assert len(rows) == 4 * len(templates)
    assert not any("{" in row.prompt or "a apple" in row.prompt for row in rows)


def test_every_set_of_the_script_has_a_file() -> None:
    assert set(SETS) == {file.stem for file in FILES}


def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    rows = read_prompt_set(tmp_path / "church.csv")
    assert Counter(row.group for row in rows) == {"target": 5, "synonym": 6, "neighbour": 10, "other": 10}
