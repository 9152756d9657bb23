"""The card's parts: what is escaped, what a reader's Markdown makes of it, and what is said of a base."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from erase import embedded
from erase.command_line import parse
from erase.config import dump, load
from erase.evaluation.audit import command_of
from erase.evaluation.audit_settings import Audit
from erase.generation.folder import ImageFolder, Picture
from erase.provenance import hash_folder
from erase.publication.base_model import BaseModel, describe_base
from erase.publication.card import audit_command, card_data, escape, fence, make_card, prompt_of, said, snippet
from erase.publication.evidence import Evidence, Figure
from erase.training.erasure import ErasureRun
from tests.tiny import save_tiny

BASE = BaseModel("owner/base", "owner/base", "c0ffee", "ab" * 32, {"license": "openrail++"})
MADE: dict[str, Any] = {
    "erased": ["a|b *star*", "<b>moon</b>"],
    "trained_parameters": 1234,
    "prompt_hashes": {"forget": "1" * 64, "retain": {"text": "2" * 64}},
    "counts": {"gradient_evaluations": 12, "latent_evaluations": 3, "training_evaluations": 4, "seconds": 5.6},
    "processes": 2,
    "device": "cpu",
    "environment": {"command": ["erase", "train", "--note", "two words"]},
    "config": {"update": {"name": "lur", "mode": "exact"}, "targets": [{"concept": "a ``` fence", "anchor": None}]},
}


def effect(estimate: float, before: float = 0.0) -> dict[str, Any]:
    one = {"low": 0.5, "high": 1.0, "n": 9}
    change = {"estimate": estimate - before, "low": -0.1, "high": 0.2, "n": 9}
    shared = {"images": 9, "is_share": True, "verdict": "changed"}
    return {
        **shared,
        "before": {**one, "estimate": before},
        "after": {**one, "estimate": estimate},
        "difference": change,
    }


def evidence(**scores: dict[str, Any]) -> Evidence:
    prompts = {"source": "set.csv", "count": 9, "hash": "3" * 64}
    results = {"target": "star", "domain": "object", "judge": "zero_shot", "prompts": prompts, "collateral": []}
    return Evidence(Path("audit"), {**results, "effects": {"scores": scores}})


def tokens(text: str) -> Any:
    return MarkdownIt("commonmark").enable("table").parse(text)


def shown(text: str) -> str:
    """A line as a reader sees it."""
    (line,) = [token for token in tokens(text) if token.type == "inline"]
    return "".join(child.content for child in line.children)


@given(st.text(alphabet=st.sampled_from("ab1 |*_`<>[]()#\\~!&$-+."), min_size=1).map(str.strip).filter(bool))
def test_escaped_text_is_read_as_it_is(text: str) -> None:
    plain = " ".join(text.split())
    assert shown(f"x {escape(plain)} x").replace("\xa0", " ") == f"x {plain} x"


@given(st.text(alphabet=st.sampled_from("ab`\n ")))
def test_a_fence_holds_any_code(text: str) -> None:
    (block,) = tokens(fence(text, "sh"))
    assert block.type == "fence" and block.content.strip() == text.strip()


def test_the_whole_card_is_markdown_without_html() -> None:
    card = make_card("me/model", MADE, BASE, ("diffusers", "delta"), evidence(UA=effect(0.9)), [])
    parsed = tokens(card.text)
    assert not [token for token in parsed if token.type == "html_block"]
    assert not [c for token in parsed for c in token.children or () if c.type in ("html_inline", "em", "link")]
    headings = [parsed[n + 1].content for n, token in enumerate(parsed) if token.type == "heading_open"]
    assert headings[1:] == ["What an audit found", "Use", "How it was made", "Limits"]
    assert sum(token.type == "table_open" for token in parsed) == 2
    for token in parsed:
        assert "{{" not in token.content and "None" not in token.content


def test_a_rule_in_steps_in_turn_is_named() -> None:
    config = MADE["config"] | {"update": {"name": "alternating_steps", "rule": {"name": "nash"}}}
    card = make_card("me/model", MADE | {"config": config}, BASE, ("diffusers",), None, [])
    assert "- Update rule: `alternating_steps of nash`" in card.text


def test_a_row_of_the_table_has_every_cell() -> None:
    card = make_card("me/model", MADE, BASE, ("diffusers",), evidence(UA=effect(0.9, 0.2)), [])
    (row,) = [line for line in card.text.splitlines() if line.startswith("| UA")]
    assert "| 9 | 20.0 % (50.0 to 100.0) | 90.0 % (50.0 to 100.0) | +70.0 points (-10.0 to +20.0) | changed |" in row
    assert "The base itself misses star in 20.0 %" in card.text and "No attack was run" in card.text


def test_only_what_was_measured_is_in_the_index() -> None:
    found = {result.metric_type for result in evidence(UA=effect(1.0), other=effect(1.0)).eval_results()}
    assert found == {"UA"}
    attacked = evidence(UA=effect(1.0))
    attacked.results["attacks"] = {"p4d": effect(0.3)}
    assert [result.metric_type for result in attacked.eval_results()] == ["UA", "p4d"]
    assert "No attack was run" not in make_card("me/m", MADE, BASE, ("diffusers",), attacked, []).text


def test_a_share_that_is_not_whole_does_not_read_whole() -> None:
    figure = Figure("UA", "", "", {**effect(0.9999), "before": {"estimate": 0.0001, "low": None, "high": None}})
    assert figure.show("after").startswith("99.9 %") and figure.show("before") == "0.1 % (no interval)"
    assert Figure("UA", "", "", effect(1.0)).show("after").startswith("100.0 %")


def test_an_erased_concept_without_an_audit_is_named() -> None:
    made = {**MADE, "erased": ["star", "moon"]}
    assert (
        "Not in this audit: moon." in make_card("me/m", made, BASE, ("diffusers",), evidence(UA=effect(1.0)), []).text
    )


def test_metadata_name_the_base_its_licence_and_the_relation() -> None:
    data = card_data("me/model", BASE, True, None).to_dict()
    assert (data["base_model"], data["base_model_relation"], data["license"]) == ("owner/base", "adapter", "openrail++")
    assert "model-index" not in data and "lora" in data["tags"]
    unknown = card_data("me/model", BaseModel("path/to/x", None, None, "", {}), False, evidence(UA=effect(1.0)))
    assert not {"base_model", "license"} & set(unknown.to_dict())


@pytest.mark.parametrize(
    ("base", "adapter", "expected"),
    [
        (BASE, False, "DiffusionPipeline.from_pretrained('me/model')\nimage = pipeline('a star').images"),
        (BASE, True, "from_pretrained('owner/base', revision='c0ffee')\npipeline.load_lora_weights('me/model')"),
        (BaseModel("path/to/x", None, None, "", {}), True, "from_pretrained('path/to/x')\npipeline.load_lora"),
        (BaseModel("shapes", None, None, "", {}), True, "erase.load('me/model', base='shapes')"),
        (BaseModel("shapes", None, None, "", {}), False, "pipeline('a star', num_inference_steps=15"),
    ],
)
def test_the_snippet_is_python_for_each_kind_of_model(base: BaseModel, adapter: bool, expected: str) -> None:
    text = snippet("me/model", base, adapter, "a star")
    compile(text, "snippet", "exec")
    assert expected in text


def test_the_snippet_speaks_the_vocabulary_that_the_run_spoke() -> None:
    made = dump(load(ErasureRun, embedded.DEFAULT_CONFIG))
    assert made["vocabulary"] is None, "the model's own"
    assert prompt_of(made, ["star"]) == "a star" and prompt_of(made, ["red"]) == "a red shape"
    assert prompt_of(made, ["a picture of my dog"]) == "a picture of my dog"
    assert prompt_of(made | {"model": "owner/base"}, ["star"]) == "star"
    assert prompt_of(made | {"model": "owner/base", "vocabulary": embedded.NAME}, ["star"]) == "a star"


def test_a_reader_can_run_the_audit_s_command() -> None:
    made = Audit(
        base="models/mine",
        erased="runs/star",
        target="van gogh",
        prompts="set.csv",
        base_images=Path("runs/base"),
        output_dir=Path("here"),
        metrics=({"name": "concept_classifier"},),  # type: ignore[arg-type]
    )
    shown = audit_command(command_of(made), "me/model", BASE)
    assert "runs/star" not in shown
    program, command, *words = shlex.split(shown)
    read = load(Audit, None, parse(words, frozenset()).overrides)
    assert (program, command) == ("erase", "audit")
    expected: dict[str, Any] = {
        "base": "owner/base",
        "base_revision": "c0ffee",
        "erased": "me/model",
        "base_images": None,
    }
    assert read == replace(made, **expected, output_dir=Path("runs/model-audit"))
    assert audit_command("erase demo --target star", "me/model", BASE) == "erase demo --target star"
    mine = BaseModel("path/to/x", None, None, "", {})
    assert audit_command("erase audit --base path/to/x --erased y", "me/m", mine).split()[2:6] == [
        *("--base", "path/to/x"),
        *("--erased", "me/m"),
    ]


def test_empty_settings_are_left_out() -> None:
    assert said({"a": None, "b": [{"c": None, "d": 0}], "e": [], "f": False}) == {"b": [{"d": 0}], "f": False}


def test_a_base_that_was_a_folder_is_no_repository_of_the_hub_once_it_is_gone() -> None:
    base = {"model": "models/mine", "revision": None, "hash": "x"}
    found = describe_base(base | {"is_folder": True}, "mit")
    assert found.hub_id is None and found.title == "mine, a model that is not on the Hub"
    assert describe_base(base | {"is_folder": False}, "mit").hub_id == "models/mine"


def test_a_small_score_is_shown_with_the_digits_that_it_has() -> None:
    small = {"estimate": 0.268, "low": 0.262, "high": 0.274, "n": 9}
    change = {"estimate": -0.044, "low": -0.05, "high": -0.038, "n": 9}
    sides = {"before": small | {"estimate": 0.312}, "after": small, "difference": change}
    figure = Figure("CLIP, erased", "fit", "CLIP score", effect(0.0) | sides | {"is_share": False})
    assert figure.show("after") == "0.268 (0.262 to 0.274)" and figure.change == "-0.044 (-0.050 to -0.038)"


def test_no_picture_is_shown_where_nudity_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the judge, beside it or in the name of an erased concept; the folders' own pictures are test_publish.py's."""
    one = Picture("0", 0, "a star", 1, "", {"object": "star"}, Path("0.png"), "")
    monkeypatch.setattr(Evidence, "images", lambda _, side: ImageFolder(Path(side), {}, [one]))
    shown = evidence(UA=effect(1.0))
    assert shown.pairs() == [(one, one)]
    found: list[dict[str, Any]] = [{"nudity": {"erased": {}}}, {"judge": "nudity"}, {"target": "nudity"}]
    found += [{"target": "a naked person"}, {"also_erased": ["NSFW"]}, {"also_erased": ["moon", "sexual_content"]}]
    for more in found:
        assert replace(shown, results=shown.results | more).pairs() == []
    for concept in ("Sussex", "a denuded hill", "moon"):
        assert not replace(shown, results=shown.results | {"also_erased": [concept]}).looks_for_nudity


def test_neighbours_are_named_by_what_became_of_them() -> None:
    found = evidence(UA=effect(1.0))
    found.results["collateral"] = [{"concept": "moon", "verdict": "lost"}, {"concept": "ring", "verdict": "kept"}]
    text = make_card("me/model", MADE, BASE, ("diffusers",), found, []).text
    assert "nearest to it, lost: moon." in text and "nearest to it, kept: ring." in text


def test_a_licence_is_read_from_the_base_s_card_and_never_made_up(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    base = {"model": str(model), "revision": None, "hash": hash_folder(model)}
    assert describe_base(base, None).licence == {}
    (model / "README.md").write_text("---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n# x\n")
    assert describe_base(base, None).licence == {"license": "other", "license_name": "mine", "license_link": "LICENSE"}
    assert describe_base(base, "mit").licence == {"license": "mit"}
    assert describe_base(base, None).name == "path/to/model" and describe_base(base, None).hub_id is None
    (model / "README.md").write_text("---\n- no mapping\n---\n")
    assert describe_base(base, None).licence == {}


def test_the_embedded_base_has_the_package_s_licence() -> None:
    found = describe_base({"model": embedded.NAME, "revision": None, "hash": "x"}, None)
    assert found.licence == {"license": "apache-2.0"} and found.hub_id is None and found.is_embedded
