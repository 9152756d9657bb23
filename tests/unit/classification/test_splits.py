"""The parts of a data set: none overlaps another, all depend on the seed alone, and what is forgotten is as asked."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from erase.classification.data import Digits, Folder, Shapes
from erase.classification.images import Images, Normalise
from erase.classification.splits import FORGET, Classes, Flipped, Forget, Listed, Random, Splits, make_splits
from erase.config import build
from erase.errors import UserError
from tests.unit.classification.pictures import PETS, noise, pets

RANDOM = Random()


@cache
def split(forget: Forget = RANDOM, seed: int = 0) -> Splits:
    return make_splits(Digits(), forget, seed)


def ids(*parts: Images) -> list[str]:
    return sorted(name for part in parts for name in part.ids)


EVERY = (Random(), Flipped(), Classes(labels=("3", "7")), Listed(ids=split().train.ids[:5]))


@pytest.mark.parametrize("forget", EVERY, ids=lambda forget: forget.name)
def test_parts_are_disjoint_and_cover_all_but_the_validation_pictures_of_forgotten_classes(forget: Forget) -> None:
    s = split(forget)
    assert ids(s.forget, s.retain) == ids(s.train)
    everything = Digits().load(0).images
    together = ids(s.train, s.validation, s.test, s.test_forgotten)
    assert len(set(together)) == len(together)
    unseen = set(everything.ids) - set(together)
    gone = {"3", "7"} if forget.name == "classes" else set()
    place = {name: number for number, name in enumerate(everything.ids)}
    assert {s.classes[everything.labels[place[name]]] for name in unseen} == gone


@pytest.mark.parametrize("forget", EVERY, ids=lambda forget: forget.name)
def test_every_sample_keeps_its_picture_and_label_except_where_it_is_flipped(forget: Forget) -> None:
    s, everything = split(forget), Digits().load(0).images
    place = {name: number for number, name in enumerate(everything.ids)}
    for part in (s.train, s.forget, s.retain, s.validation, s.test, s.test_forgotten):
        origin = everything.take([place[name] for name in part.ids])
        assert torch.equal(part.pixels, origin.pixels)
        changed = {name for name, a, b in zip(part.ids, part.labels, origin.labels, strict=True) if a != b}
        flipped = set(s.forget.ids) & set(part.ids) if forget.name == "flipped" else set()
        assert changed == flipped


def test_what_is_held_back_is_a_share_of_each_class() -> None:
    s = split()
    for part, share, of in ((s.test, 0.2, 1797), (s.validation, 0.1, 1797 * 0.8)):
        counts = torch.bincount(part.labels, minlength=10)
        assert counts.sum().item() == pytest.approx(share * of, abs=5)
        assert counts.max() - counts.min() <= 3


def test_the_held_back_parts_do_not_depend_on_what_is_forgotten() -> None:
    assert len({split(forget).test.hash() for forget in (Random(), Flipped(), Random(fraction=0.5))}) == 1
    assert len({split(forget).validation.hash() for forget in (Random(), Flipped(), Random(fraction=0.5))}) == 1
    assert len({split(forget).train.ids for forget in EVERY}) == 1


def test_splits_are_a_function_of_the_seed() -> None:
    first, again = split(), make_splits(Digits(), Random(), 0)
    assert first.hashes() == again.hashes()
    other = split(seed=1)
    assert all(first.hashes()[part] != other.hashes()[part] for part in ("train", "forget", "validation", "test"))


@given(share=st.floats(0.01, 0.99))
def test_a_random_share_is_that_share_of_the_training_samples(share: float) -> None:
    s = make_splits(Digits(), Random(fraction=share), 0)
    assert len(s.forget) == round(share * len(s.train))


def test_forgotten_classes_are_forgotten_whole_and_tested_apart() -> None:
    s, plain = split(Classes(labels=("3", "7"))), split()
    assert set(s.forget.labels.tolist()) == {3, 7} == set(s.test_forgotten.labels.tolist())
    for part in (s.retain, s.validation, s.test):
        assert set(part.labels.tolist()) == {0, 1, 2, 4, 5, 6, 8, 9}
    assert ids(s.test, s.test_forgotten) == ids(plain.test)
    assert len(plain.test_forgotten) == 0


def test_flipped_labels_are_wrong_and_uniform_among_the_others() -> None:
    s = split(Flipped(fraction=0.5))
    plain = split()
    origin = dict(zip(plain.train.ids, plain.train.labels.tolist(), strict=True))
    moved = [(label - origin[name]) % 10 for name, label in zip(s.forget.ids, s.forget.labels.tolist(), strict=True)]
    counts = torch.bincount(torch.tensor(moved), minlength=10)
    assert counts[0] == 0
    expected = len(moved) / 9
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 26.1  # chi-squared, 8 degrees of freedom, 0.1 %
    assert torch.equal(
        split(Flipped(fraction=0.5), 1).train.labels, make_splits(Digits(), Flipped(fraction=0.5), 1).train.labels
    )


def test_listed_samples_come_from_a_list_a_file_or_both(tmp_path: Path) -> None:
    names = split().train.ids
    file = tmp_path / "forget.txt"
    file.write_text(f"{names[4]}\n\n  {names[2]}\n", encoding="utf-8")
    assert make_splits(Digits(), Listed(ids=(names[9],), file=file), 0).forget.ids == (names[2], names[4], names[9])


def test_names_that_yaml_reads_as_numbers_are_names() -> None:
    assert build(Classes, {"name": "classes", "labels": [3, "7"]}) == Classes(labels=("3", "7"))


def test_ids_out_of_the_training_part_or_twice_are_refused(tmp_path: Path) -> None:
    s = split()
    known = s.train.ids[0]
    with pytest.raises(UserError) as refused:
        make_splits(Digits(), Listed(ids=(known, s.test.ids[0], "digit-0001", known)), 0)
    first, second, third = refused.value.problems
    assert first.startswith(f"forget.ids.1: '{s.test.ids[0]}' is no training sample with this split_seed: ")
    assert second.startswith(
        "forget.ids.2: 'digit-0001' is no training sample with this split_seed: unknown, or held back to test or "
        "validate; did you mean digits-"
    )
    assert third == f"forget.ids.3: '{known}' is there twice, first at forget.ids.0; leave one out"
    file = tmp_path / "forget.txt"
    file.write_text(f"{known}\n{known}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"forget.txt:2: .* is there twice, first at .*forget.txt:1"):
        make_splits(Digits(), Listed(file=file), 0)
    with pytest.raises(UserError, match=r"forget.file: .*nowhere.txt cannot be read"):
        make_splits(Digits(), Listed(file=tmp_path / "nowhere.txt"), 0)


def test_an_unknown_class_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(UserError, match=r"forget.labels.1: found 'cirle'; did you mean circle\?"):
        make_splits(Shapes(images=240, size=8), Classes(labels=("ring", "cirle")), 0)
    with pytest.raises(UserError, match=r"forget.labels.0: found 'three'; known: 0, 1, 2"):
        make_splits(Digits(), Classes(labels=("three",)), 0)
    with pytest.raises(UserError, match=r"forget.labels.2: '3' is there twice, first at forget.labels.0; leave one"):
        make_splits(Digits(), Classes(labels=("3", "7", "3")), 0)


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        (Listed(), "listed chooses none of the 1295 training samples"),
        (Random(fraction=1e-4), "random chooses none of the 1295"),
        (Random(fraction=0.9999), "random chooses all 1295"),
        (Classes(labels=tuple("0123456789")), "classes chooses all 1295"),
    ],
)
def test_an_empty_forget_or_retain_set_is_refused(forget: Forget, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_splits(Digits(), forget, 0)


def test_shares_that_leave_a_part_empty_are_refused(tmp_path: Path) -> None:
    folder = pets(tmp_path)
    with pytest.raises(UserError) as refused:
        make_splits(Digits(), Random(), 0, test_share=0.0, validation_share=1.0)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["test_share", "validation_share"]
    with pytest.raises(UserError, match=r"^data: 0.1 of each class is held back for test, .* 5 pictures is 0; give"):
        make_splits(Folder(path=folder, size=8), Random(fraction=0.5), 0, test_share=0.1)


def test_a_test_part_of_nothing_that_is_kept_is_refused(tmp_path: Path) -> None:
    """Of three pictures a tenth is none, of twelve one: all that is tested is then to be forgotten."""
    folder = tmp_path / "pets"
    for name, count in (("cat", 3), ("dog", 12)):
        (folder / name).mkdir(parents=True)
        for place in range(count):
            noise(place).save(folder / name / f"{place}.png")
    with pytest.raises(UserError, match=r"^data: all 1 test pictures are of what forget.name classes chooses"):
        make_splits(Folder(path=folder, size=8), Classes(labels=("dog",)), 0, test_share=0.1)
    kept = make_splits(Folder(path=folder, size=8), Classes(labels=("cat",)), 0, test_share=0.1)
    assert len(kept.test) == 1 and not len(kept.test_forgotten)


def test_a_sources_own_test_pictures_are_the_test_part(tmp_path: Path) -> None:
    folder, others = pets(tmp_path / "pets"), pets(tmp_path / "others", first=5)
    s = make_splits(Folder(path=folder, test=others, size=8), Random(fraction=0.5), 0, validation_share=0.3)
    assert s.test.ids == tuple(f"test:{name}" for name in PETS)
    assert tuple(ids(s.train, s.validation)) == PETS


def test_pictures_are_normalised_by_the_training_part() -> None:
    s = split()
    assert s.normalise == Normalise.of(s.train.pixels)
    assert s.normalise != Normalise.of(Digits().load(0).images.pixels)


def test_the_record_holds_every_sample_and_the_hashes_as_json() -> None:
    s = split(Classes(labels=("3",)))
    record = json.loads(json.dumps(s.record(), allow_nan=False))
    assert record["sha256"]["forget"] == s.forget.hash()
    assert record["ids"]["forget"] == list(s.forget.ids)
    assert sorted(record["ids"]["forget"] + record["ids"]["retain"]) == ids(s.train)
    assert (record["seed"], record["sizes"]["test"], record["classes"][3]) == (0, len(s.test), "3")


def test_each_name_selects_its_own_class() -> None:
    assert {name: kind.__dataclass_fields__["name"].default for name, kind in FORGET.items()} == {n: n for n in FORGET}
