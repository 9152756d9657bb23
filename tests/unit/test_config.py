"""Settings from a file and from overrides: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from pydantic.dataclasses import dataclass

from erase.classification.model_settings import ModelSettings
from erase.components import STRICT
from erase.config import build, differences, dump, load, merge, read_yaml
from erase.diffusion.settings import idle_settings
from erase.errors import UserError, refuse
from erase.training.erasure import ErasureRun
from erase.updates import LUR, UPDATES, Update, WeightedSum
from erase.updates.alpha import AbsoluteAlpha, CorrectionAlpha, DisplacementAlpha

ALPHAS = st.builds(AbsoluteAlpha, value=st.floats(0, 1e3)) | st.builds(
    CorrectionAlpha, ratio=st.floats(1e-9, 1), max_displacement=st.floats(1e-9, 1)
)
CHOSEN = st.just(WeightedSum()) | st.builds(LUR, mode=st.sampled_from(["chained", "exact"]), alpha=ALPHAS)


@dataclass(frozen=True, config=STRICT)
class Target:
    concept: str
    weight: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True, config=STRICT)
class Settings:
    targets: tuple[Target, ...]
    update: Annotated[Update, Field(discriminator="name")] = LUR()
    steps: Annotated[int, Field(ge=1)] = 10
    rate: float = 1e-3
    note: str = ""


def tree() -> dict[str, Any]:
    return {
        "targets": [{"concept": "star"}, {"concept": "square", "weight": 2.0}],
        "update": {"name": "lur", "mode": "exact", "alpha": {"name": "absolute", "value": 0.5}},
    }


def settings(*overrides: str) -> Settings:
    return build(Settings, merge(tree(), overrides))


def problems(*overrides: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        settings(*overrides)
    return caught.value.problems


def written(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_and_overrides_make_validated_settings(tmp_path: Path) -> None:
    file = written(tmp_path, "targets: [{concept: star}]\nsteps: 3\nupdate: {name: lur, mode: exact}\n")
    loaded = load(Settings, file, ["update.mode=chained", "steps=4"])
    assert loaded == Settings(targets=(Target("star"),), steps=4, update=LUR(mode="chained"))


def test_overrides_alone_are_enough() -> None:
    assert load(Settings, None, ["targets=[{concept: a}, {concept: b}]"]).targets == (Target("a"), Target("b"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stesp=3", "stesp: unknown key (value 3); did you mean steps?"),
        ("update.nmae=lur", "update.nmae: unknown key (value 'lur'); did you mean name?"),
        ("update.alpha.vlaue=1", "update.alpha.vlaue: unknown key (value 1); did you mean value?"),
        ("targets.1.concpt=x", "targets.1.concpt: unknown key (value 'x'); did you mean concept?"),
        ("qqqq=1", "qqqq: unknown key (value 1); `--help` lists all"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_a_suggestion(override: str, expected: str) -> None:
    assert problems(override) == (expected,)


def test_a_key_of_another_component_is_not_suggested_to_itself() -> None:
    (problem,) = problems("update.name=weighted_sum", "update.mode=exact")
    assert problem.startswith("update.mode: unknown key (value 'exact')")
    assert "did you mean mode?" not in problem
    assert problem.endswith("; update.name weighted_sum has none; it belongs to lur")


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("steps=many", "steps: found 'many'; input should be a valid integer"),
        ("steps=0", "steps: found 0; input should be greater than or equal to 1"),
        ("rate=.inf", "rate: found inf; input should be a finite number"),
        ("note=3", "note: found 3, as YAML reads it; must be text: put it between quotes"),
        ("update.mode=exat", "update.mode: found 'exat'; input should be 'chained', 'exact', 'alternating' or"),
        ("update.alpha.value=-1", "update.alpha.value: found -1; input should be greater than or equal to 0"),
        ("targets.0.weight=-1", "targets.0.weight: found -1; input should be greater than 0"),
        ("update=3", "update: found 3"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_the_rule(override: str, start: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(start)


def test_a_key_of_other_variants_names_them_all() -> None:
    (problem,) = problems("update.alpha.ratio=0.1")
    assert problem == (
        "update.alpha.ratio: unknown key (value 0.1); update.alpha.name absolute has none; "
        "it belongs to correction, displacement"
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert problems("update.name=magic") == (f"update.name: found 'magic'; known: {', '.join(UPDATES)}",)
    (problem,) = problems("update.alpha.name=big")
    assert problem == "update.alpha.name: found 'big'; known: absolute, displacement, correction"


@pytest.mark.parametrize("value", ["[1]", "{a: 1}", "1", "null"])
def test_a_name_that_is_no_word_is_refused_as_an_unknown_one(value: str) -> None:
    (problem,) = problems(f"update.name={value}")
    assert problem.startswith("update.name: found")
    assert "lur, weighted_sum" in problem


def test_a_missing_key_is_said() -> None:
    with pytest.raises(UserError, match=r"^targets: must be given"):
        build(Settings, {})


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems("steps=many", "rate=fast", "stesp=1", "update.mode=exat", "targets.0.weight=-1")
    assert sorted(problem.split(":")[0] for problem in found) == [
        "rate",
        "steps",
        "stesp",
        "targets.0.weight",
        "update.mode",
    ]


def test_refuse_raises_all_problems_or_nothing() -> None:
    refuse([])
    with pytest.raises(UserError) as caught:
        refuse(iter(["one", "two"]))
    assert caught.value.problems == ("one", "two")
    assert str(caught.value) == "one\ntwo"


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1.5e3", 1500.0), ("2E-5", 2e-5), ("1", 1.0)])
def test_scientific_notation_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    assert settings(f"rate={text}").rate == value
    assert read_yaml(written(tmp_path, f"rate: {text}"))["rate"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nsteps: 2\n", "duplicate key steps"),
        ("update: {name: lur, name: exact}\n", "duplicate key name"),
        ("- 1\n", "must hold a mapping"),
        ("3\n", "mapping|cannot be read"),
        ("steps: [\n", "cannot be read as YAML"),
        ("note: ${\n", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_clean_mapping_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_a_folder_and_a_binary_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: there is no such file"):
        load(Settings, tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"note: \xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "binary.yaml")


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, "")) == {}


def test_choosing_another_component_drops_the_keys_of_the_one_before() -> None:
    assert settings("update.name=weighted_sum").update == WeightedSum()
    changed = settings("update.alpha.name=displacement", "update.alpha.ratio=1e-3").update
    assert changed == LUR(mode="exact", alpha=DisplacementAlpha(ratio=1e-3))


def test_a_block_without_a_name_is_the_default_choice() -> None:
    built = build(Settings, {"targets": [{"concept": "star"}], "update": {"alpha": {"ratio": 0.3}}})
    assert built.update == LUR(alpha=CorrectionAlpha(ratio=0.3))


def test_choosing_another_component_drops_the_keys_of_an_unnamed_default_too(tmp_path: Path) -> None:
    file = written(tmp_path, "targets: [{concept: star}]\nupdate: {mode: exact, alpha: {max_displacement: 0.5}}\n")
    assert load(Settings, file, ["update.name=weighted_sum"]).update == WeightedSum()
    assert load(Settings, file, ["update.name=lur"]).update == load(Settings, file).update
    changed = load(Settings, file, ["update.alpha.name=displacement"]).update
    assert changed == LUR(mode="exact", alpha=DisplacementAlpha())


def test_choosing_the_same_component_keeps_its_keys() -> None:
    assert settings("update.name=lur").update == settings().update


def test_the_order_of_overrides_does_not_matter() -> None:
    overrides = ["update.alpha.value=0.25", "update.alpha.name=absolute", "update.name=lur", "steps=7"]
    start = {"targets": [{"concept": "star"}], "update": {"name": "weighted_sum"}}
    first, last = (build(Settings, merge(start, order)) for order in (overrides, overrides[::-1]))
    assert first == last
    assert first.update == LUR(alpha=AbsoluteAlpha(value=0.25))


def test_an_override_reaches_into_a_list_by_index() -> None:
    assert settings("targets.0.concept=circle").targets == (Target("circle"), Target("square", 2.0))


def read(*overrides: str) -> Settings:
    return load(Settings, None, ["targets.0.concept=star", *overrides])


@pytest.mark.parametrize("name", ["weighted_sum", "pcgrad", "lur"])
def test_the_bare_name_of_a_choice_is_the_choice(name: str, tmp_path: Path) -> None:
    chosen = UPDATES[name]()
    assert read(f"update={name}").update == chosen
    assert load(Settings, written(tmp_path, f"targets: [{{concept: star}}]\nupdate: {name}\n")).update == chosen
    assert build(Settings, {"targets": [{"concept": "star"}], "update": name}).update == chosen


def test_a_bare_name_and_the_chosen_ones_keys_go_together_in_any_order() -> None:
    overrides = ["update=lur", "update.mode=exact", "update.alpha=absolute", "update.alpha.value=0.5"]
    for order in (overrides, overrides[::-1]):
        assert read(*order).update == LUR(mode="exact", alpha=AbsoluteAlpha(value=0.5))


def test_a_bare_name_drops_the_keys_of_another_component_and_keeps_those_of_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, yaml.safe_dump(tree()))
    assert load(Settings, file, ["update=weighted_sum"]).update == WeightedSum()
    assert load(Settings, file, ["update=lur"]).update == settings().update
    assert load(Settings, file, ["update.alpha=displacement"]).update == LUR(mode="exact", alpha=DisplacementAlpha())


def test_a_word_that_is_no_choice_stays_a_word() -> None:
    assert read("note=lur").note == "lur"
    assert read("targets.0.concept=pcgrad").targets == (Target("pcgrad"),)


def test_a_bare_name_that_is_unknown_lists_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        read("update=magic")
    assert caught.value.problems == (f"update.name: found 'magic'; known: {', '.join(UPDATES)}",)


@dataclass(frozen=True, config=STRICT)
class Several:
    updates: tuple[Annotated[Update, Field(discriminator="name")], ...]
    words: tuple[str, ...] = ("one", "two")


def test_a_list_of_choices_takes_bare_names_and_indices() -> None:
    expected = (WeightedSum(), LUR(mode="exact"))
    assert build(Several, {"updates": ["weighted_sum", {"name": "lur", "mode": "exact"}]}).updates == expected
    given = ["updates.1.mode=exact", "updates.0=weighted_sum", "updates.1=lur"]
    assert load(Several, None, given).updates == expected


@given(st.lists(st.builds(Target, concept=st.sampled_from(["star", "ring"]), weight=st.floats(0.5, 2)), min_size=1))
def test_a_list_given_entry_by_entry_is_the_list(targets: list[Target]) -> None:
    words = [f"targets.{i}.{key}={value}" for i, t in enumerate(targets) for key, value in dump(t).items()]
    assert load(Settings, None, words[::-1]).targets == tuple(targets)


@pytest.mark.parametrize("keys", [["1"], ["0", "2"], ["first"], ["0", "first"]])
def test_entries_with_gaps_are_no_list(keys: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(Settings, None, [f"targets.{key}.concept=star" for key in keys])
    (problem,) = caught.value.problems
    assert problem.startswith("targets: found {") and "targets.0, targets.1, without gaps" in problem


def test_the_entry_after_the_last_is_added_and_one_beyond_it_is_not() -> None:
    assert settings("targets.2.concept=ring").targets[2] == Target("ring")
    assert problems("targets.5.concept=circle") == (
        "--targets.5.concept: the list has 2 entries, so the next one is 2",
    )


def test_a_wrong_entry_does_not_make_its_list_too_short() -> None:
    """Of a list that must not be empty, a wrong entry leaves none; that is not said as well."""

    @dataclass(frozen=True, config=STRICT)
    class Filled:
        updates: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

    def said(values: str) -> list[str]:
        with pytest.raises(UserError) as caught:
            load(Filled, None, [f"updates={values}"])
        return [problem.split(";")[0] for problem in caught.value.problems]

    assert said("[0]") == ["updates.0: found 0"]
    assert said("[]") == ["updates: found []"]


@pytest.mark.parametrize("override", ["targets.first.concept=circle", "note=${"])
def test_an_override_that_cannot_be_set_is_named(override: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(f"--{override.partition('=')[0]}: cannot be set to")


@pytest.mark.parametrize("override", ["steps", "=3", ""])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    assert problems(override) == (f"{override!r} is not KEY=VALUE",)


@pytest.mark.parametrize("text", ["", "a: b", "a=b", "a red, star", "[open", "@x", "*x", "'", "50%", "a #b", "${x}"])
def test_a_string_override_arrives_whole(text: str) -> None:
    assert settings(f"note={text}").note == text


def test_merging_leaves_the_tree_alone() -> None:
    start = tree()
    merge(start, ["update.name=weighted_sum", "targets.0.concept=circle"])
    assert start == tree()


@given(update=CHOSEN, steps=st.integers(1, 10**9), rate=st.floats(-1e6, 1e6), note=st.text(max_size=9))
def test_build_inverts_dump(update: Update, steps: int, rate: float, note: str) -> None:
    original = Settings(targets=(Target("star"),), update=update, steps=steps, rate=rate, note=note)
    assert build(Settings, dump(original)) == original


def test_a_dump_names_every_default_and_survives_a_yaml_file(tmp_path: Path) -> None:
    original = settings("rate=1e-5")
    dumped = dump(original)
    assert set(dumped) == {"targets", "update", "steps", "rate", "note"}
    assert dumped["update"]["measure_every"] == 25
    assert load(Settings, written(tmp_path, yaml.safe_dump(dumped))) == original


def test_differences_name_each_leaf() -> None:
    left = {"steps": 1, "update": {"name": "lur", "alpha": {"value": 0.1}}, "note": "x"}
    right = {"steps": 2, "update": {"name": "lur", "alpha": {"value": 0.2}}, "rate": 3}
    assert differences(left, right) == [
        "note: 'x' then, None now",
        "rate: None then, 3 now",
        "steps: 1 then, 2 now",
        "update.alpha.value: 0.1 then, 0.2 now",
    ]
    assert differences(left, left) == []


def test_differences_show_a_block_that_became_a_value() -> None:
    assert differences({"update": {"name": "lur"}}, {"update": None}) == ["update: {'name': 'lur'} then, None now"]


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["targets=[{concept: star}]", "output_dir=~/run", "latents.cache_dir=~/latents"]
    run = build(ErasureRun, merge({}, words))
    assert (run.output_dir, run.latents.cache_dir) == (tmp_path / "run", tmp_path / "latents")
    with pytest.raises(UserError, match=r"output_dir: .*home"):
        build(ErasureRun, merge({}, ["targets=[{concept: star}]", "output_dir=~nobody-of-this-name/run"]))


def test_a_name_that_may_be_a_path_may_begin_at_home_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wherever it begins; a Hub id and `latest` stay as they are."""
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["targets=[{concept: star}]", "output_dir=run", "vocabulary=~/words.yaml", "model=~/base"]
    run = build(ErasureRun, merge({}, [*words, "resume_from_checkpoint=~/checkpoint-2"]))
    found = (run.vocabulary, run.model, run.resume_from_checkpoint)
    assert found == tuple(str(tmp_path / name) for name in ("words.yaml", "base", "checkpoint-2"))
    hub = build(ErasureRun, merge({}, [*words, "model=a/~b", "resume_from_checkpoint=latest"]))
    assert (hub.model, hub.resume_from_checkpoint) == ("a/~b", "latest")
    assert ModelSettings("transformers", "~/vit", "standard").architecture == str(tmp_path / "vit")
    with pytest.raises(UserError, match=r"vocabulary: .*home"):
        build(ErasureRun, merge({}, [*words, "vocabulary=~nobody-of-this-name/words.yaml"]))


def test_a_folder_at_home_is_no_hub_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base").mkdir()
    words = ["targets=[{concept: star}]", "output_dir=run", "model=~/base", "revision=main"]
    assert [p.split(": ")[0] for p in idle_settings(build(ErasureRun, merge({}, words)))] == ["revision"]
