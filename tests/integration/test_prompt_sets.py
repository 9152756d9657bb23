"""The sets in prompts/: readable, true to their README, and what their script writes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from erase.evaluation.audit_settings import Audit, check_concepts, with_target
from erase.evaluation.intervals import LEVEL, needed_pairs
from erase.evaluation.metrics.imagenet import IMAGENETTE as CLASSES
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
    assert [file.stem for file in FILES] == ["imagenette", "objects", "people", "safety_neighbours", "styles"]


@each
def test_it_reads_and_is_in_canonical_form(file: Path) -> None:
    rows = read_prompt_set(file)
    assert 100 <= len(rows) <= 350
    assert canonical_csv(rows).encode() == file.read_bytes()
    assert len({row.prompt for row in rows}) == len({row.seed for row in rows}) == len(rows)
    assert all(row.group and len(row.concepts) == 1 for row in rows)


@each
def test_every_concept_has_enough_prompts_for_a_verdict_in_a_table_of_them_all(file: Path) -> None:
    rows = read_prompt_set(file)
    counts = Counter(concept for row in rows for concept in row.concepts.values())
    assert min(counts.values()) >= 12 >= needed_pairs(1 - (1 - LEVEL) / len(counts))
    groups = Counter((row.group, concept) for row in rows for concept in row.concepts.values())
    assert min(groups.values()) >= 12, "a topic near nudity is another than that near violence"


@each
def test_no_concept_is_of_two_domains_and_an_audit_takes_each_as_its_target(file: Path) -> None:
    rows = read_prompt_set(file)
    for domain, concept in {pair for row in rows for pair in row.concepts.items()}:
        assert check_concepts(Audit(erased="shapes", target=concept), rows) == domain


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


def test_imagenets_judge_knows_every_class_of_the_imagenette_set() -> None:
    rows = read_prompt_set(FOLDER / "imagenette.csv")
    assert {row.concepts["class"] for row in rows} == set(CLASSES.values()) == set(IMAGENETTE)
    same = [row.prompt for row in read_prompt_set(FOLDER / "objects.csv") if row.group == "imagenette"]
    assert [row.prompt for row in rows] == same


def test_no_prompt_near_nudity_names_a_child() -> None:
    near = [row.prompt for row in read_prompt_set(FOLDER / "safety_neighbours.csv") if row.group == "near nudity"]
    young = r"child|children|kids?|boys?|girls?|baby|babies|infants?|newborn\w*|toddlers?|nursery|teen\w*"
    assert len(near) == 7 * 12
    assert [prompt for prompt in near if re.search(rf"\b({young})\b", prompt)] == []


@pytest.mark.parametrize("templates", [OBJECT, STYLE, PERSON])
def test_the_templates_make_a_set_of_any_concept(templates: tuple[str, ...]) -> None:
    rows = concept_set("apple", ["pome"], ["pear"], ["teapot"], templates, seed=0)
    assert len(rows) == 4 * len(templates)
    assert not any("{" in row.prompt or "a apple" in row.prompt for row in rows)


def test_every_set_of_the_script_has_a_file() -> None:
    assert set(SETS) == {file.stem for file in FILES}


I2P = """,prompt,categories,nudity_percentage,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height
0,"one, of the field's own",sexual,80.0,11,7.0,512,768
1,another,sexual,0.0,12,7.5,512,512
"""


def test_the_readmes_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").symlink_to(FOLDER)
    (tmp_path / "i2p.csv").write_text(I2P)
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
    assert len(examples) == 2
    groups = Counter(row.group for row in read_prompt_set(tmp_path / "church.csv"))
    assert groups == {"target": 12, "synonym": 13, "neighbour": 24, "other": 24}
    both = read_prompt_set(tmp_path / "nudity.csv")
    assert (both[0].seed, both[0].height, both[0].concepts) == (11, 768, {})
    audit = Audit(erased="shapes", target="nudity", all_target=True)
    rows = with_target(audit, both)
    domain = check_concepts(audit, rows)
    asked = [row.prompt for row in rows if row.concepts.get(domain) == "nudity"]
    assert asked == ["one, of the field's own", "another"]
    assert len(rows) == 2 + 156
