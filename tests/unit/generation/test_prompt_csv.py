"""Prompt sets from the field's CSV files, and the one form that we write."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erase.embedded import FULL_TEMPLATE, VOCABULARY
from erase.errors import UserError
from erase.generation.prompt_csv import read_prompt_set, write_prompt_set
from erase.generation.prompts import PromptRow, evaluation_seed, hash_rows, vocabulary_set


def read(folder: Path, content: str, seed: int | None = None) -> list[PromptRow]:
    file = folder / "set.csv"
    file.write_bytes(content.encode("utf-8"))
    return read_prompt_set(file, "prompts", seed)


def refused(folder: Path, content: str, seed: int | None = None) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        read(folder, content, seed)
    assert all(problem.startswith("prompts: ") for problem in caught.value.problems)
    return caught.value.problems


FIELD = {
    "ESD": ("case_number,prompt,evaluation_seed,artist\n0,a field by Van Gogh,2219,Van Gogh\n", {"artist": "Van Gogh"}),
    "SalUn, with its mark": (
        "\ufeffcase_number,prompt,evaluation_seed,class,classidx\n0,a church,2219,church,497\n",
        {"class": "church"},
    ),
    "with pandas' index": (",case_number,prompt,evaluation_seed\n0,0,a church,2219\n", {}),
    "COCO": ("case_number,source,prompt,evaluation_seed,coco_id\n0,coco,a church,2219,391895\n", {}),
    "COCO of ESD, without case numbers": ("image_id,prompt,evaluation_seed\n391895,a church,2219\n", {}),
    "MACE": ("type,prompt,evaluation_seed\nerased,a person,2219\n", {}),
    "in capitals": ("Case_Number,Prompt,Evaluation_Seed,Class\n0,a church,2219,church\n", {"class": "church"}),
    "floats of pandas": ("case_number,prompt,evaluation_seed\n0,a church,2219.0\n", {}),
    "Windows' line ends": ("case_number,prompt,evaluation_seed\r\n0,a church,2219\r\n", {}),
}


@pytest.mark.parametrize("name", FIELD)
def test_the_fields_files_are_read(tmp_path: Path, name: str) -> None:
    content, concepts = FIELD[name]
    (row,) = read(tmp_path, content)
    assert (row.case_number, row.seed, dict(row.concepts)) == ("0", 2219, concepts)
    assert row.prompt.startswith("a ")
    assert row.group == ("erased" if name == "MACE" else "")


@pytest.mark.parametrize(
    "header",
    [
        "prompt,categories,evaluation_seed,evaluation_guidance,sd_image_width,sd_image_height",
        "prompt,categories,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height",
        "caption,type,seed,guidance_scale,width,height",
        "text,group,seed,guidance,image_width,image_height",
    ],
)
def test_a_rows_own_sampling_is_honoured_by_every_name(tmp_path: Path, header: str) -> None:
    rows = read(tmp_path, f'{header}\n"a, b","sexual, violence",4029084530,7.5,512,768\nc,,1,,,\n')
    assert rows[0] == PromptRow("0", "a, b", 4029084530, 7.5, 512, 768, group="sexual, violence")
    assert rows[1] == PromptRow("1", "c", 1)


def test_the_first_of_several_names_is_taken(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "seed,sd_seed,evaluation_seed,text,prompt\n1,2,3,no,yes\n")
    assert (row.seed, row.prompt) == (3, "yes")


def test_newlines_quotes_and_emoji_of_captions_are_kept(tmp_path: Path) -> None:
    (row,) = read(tmp_path, 'prompt,seed\n"a ""big"" cat,\r\non a mat \U0001f408\n",1\n')
    assert row.prompt == 'a "big" cat,\r\non a mat \U0001f408\n'


def test_concepts_come_from_columns_of_their_domain(tmp_path: Path) -> None:
    rows = read(tmp_path, "prompt,seed,concept,concept/Object,style\nx,1,night,star,flat\ny,2,, ,\n")
    assert dict(rows[0].concepts) == {"concept": "night", "Object": "star"}
    assert dict(rows[1].concepts) == {}


def test_without_seeds_the_sets_own_seed_gives_them(tmp_path: Path) -> None:
    rows = read(tmp_path, "prompt\na\nb\n", seed=7)
    assert [row.seed for row in rows] == [evaluation_seed(7, 0), evaluation_seed(7, 1)]
    assert [row.seed for row in read(tmp_path, "prompt,seed\na,5\n", seed=7)] == [5]
    (problem,) = refused(tmp_path, "prompt\na\n")
    assert "no column evaluation_seed, sd_seed, seed; give a seed" in problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,sentence\n1,x\n", "has the columns id, sentence; one named `prompt` is needed"),
        ("prompt,seed\na,\n", "row 1: has no seed in the column seed"),
        ("prompt,seed\na,x\n", "row 1: seed 'x': must be a whole number"),
        ("prompt,seed\na,1.5\n", "seed '1.5': must be a whole number"),
        ("prompt,seed\na,-1\n", "row 1: seed -1"),
        ("prompt,seed\n ,1\n", "row 1: has no prompt"),
        ("prompt,seed,guidance\na,1,high\n", "row 1: guidance_scale 'high': must be a number"),
        ("prompt,seed,guidance\na,1,inf\n", "guidance_scale inf"),
        ("prompt,seed,width\na,1,427\n", "row 1: width 427: must be a positive multiple of 8"),
        ("prompt,seed,steps\na,1,0\n", "row 1: steps 0"),
        ("case_number,prompt,seed\n../x,a,1\n", "row 1: case_number '../x'"),
        ("case_number,prompt,seed\n,a,1\n", "row 1: case_number ''"),
        ("case_number,prompt,seed\n1,a,1\n1,b,2\n", "2 rows share a case_number, such as 1"),
        ("prompt,seed\na, red cat,1\n", "row 1 has more cells than the header"),
        ("prompt,seed\n", "holds no rows"),
    ],
)
def test_what_is_missing_or_wrong_is_named_with_its_row(tmp_path: Path, content: str, says: str) -> None:
    (problem,) = refused(tmp_path, content)
    assert says in problem
    assert "set.csv" in problem


def test_all_wrong_rows_are_told_of_at_once_but_not_all_listed(tmp_path: Path) -> None:
    problems = refused(tmp_path, "prompt,seed\n" + "a,x\n" * 12)
    assert len(problems) == 6
    assert problems[-1].endswith("7 more rows are wrong")


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
trimmed = text.map(str.strip).filter(bool)
rows = st.builds(
    PromptRow,
    case_number=st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=5),
    prompt=text.filter(lambda prompt: bool(prompt.strip())),
    seed=st.integers(0, 2**63 - 1),
    guidance_scale=st.none() | st.floats(0, 100),
    width=st.none() | st.integers(1, 100).map(lambda n: 8 * n),
    height=st.none() | st.integers(1, 100).map(lambda n: 8 * n),
    steps=st.none() | st.integers(1, 1000),
    group=st.just("") | trimmed,
    concepts=st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5), trimmed, max_size=2),
)


@given(st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row.case_number))
def test_any_set_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, original: list[PromptRow]) -> None:
    file = tmp_path_factory.mktemp("set") / "set.csv"
    write_prompt_set(original, file)
    again = read_prompt_set(file)
    assert again == original
    assert hash_rows(again) == hash_rows(original)


def test_the_canonical_form_by_hand(tmp_path: Path) -> None:
    made = [
        PromptRow("0", "a, b", 1, group="target", concepts={"object": "star"}),
        PromptRow("1", "c", 2, guidance_scale=3.0, concepts={"color": "red"}),
    ]
    write_prompt_set(made, tmp_path / "set.csv")
    assert (tmp_path / "set.csv").read_text() == (
        "case_number,prompt,evaluation_seed,evaluation_guidance,group,concept/object,concept/color\n"
        '0,"a, b",1,,target,star,\n'
        "1,c,2,3.0,,,red\n"
    )


def test_the_vocabularys_set_reads_back_equal(tmp_path: Path) -> None:
    made = vocabulary_set(VOCABULARY, FULL_TEMPLATE, seed=0)
    write_prompt_set(made, tmp_path / "set.csv")
    assert read_prompt_set(tmp_path / "set.csv") == made


def test_rows_that_share_a_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="share a case_number"):
        write_prompt_set([PromptRow("0", "a", 1), PromptRow("0", "b", 1)], tmp_path / "set.csv")
    assert list(tmp_path.iterdir()) == []
