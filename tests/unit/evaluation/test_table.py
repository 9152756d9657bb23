from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from erase import embedded
from erase.evaluation.table import (
    Row,
    collateral_rows,
    concept_groups,
    percent,
    plural,
    points,
    print_table,
    score_rows,
    verdict,
)


def make_side(name: str, star: float, kept: float, clip: float) -> dict[str, Any]:
    concepts = {
        concept: {"domain": domain, "accuracy": kept, "clip": 30.25, "images": 240 // len(members)}
        for domain, members in embedded.VOCABULARY.domains.items()
        for concept in members
    }
    concepts["star"] |= {"accuracy": star, "clip": clip}
    scores = {
        "UA": 1 - star,
        "IRA": kept,
        "CRA_kept": 0.998,
        "CRA_erased": 0.95,
        "across": {"color": {"kept": 0.999, "erased": 0.9}, "style": {"kept": 0.997, "erased": 1.0}},
        "none_erased": 0.2,
        "none_kept": 0.0,
        "clip_erased": clip,
        "clip_kept": 30.25,
        "images_erased": 30,
        "images_kept": 210,
    }
    return {"model": name, "hash": f"hash-of-{name}", "scores": scores, "concepts": concepts}


def make_effect(before: float, after: float, images: int, is_share: bool = True) -> dict[str, Any]:
    """An effect with intervals of a made-up width."""
    wide = 0.05 if is_share else 0.5

    def interval(value: float) -> dict[str, Any]:
        low, high = value - wide, value + wide
        return {
            "estimate": value,
            "low": max(0.0, low) if is_share else low,
            "high": min(1.0, high) if is_share else high,
        }

    change = after - before
    difference = {"estimate": change, "low": change - wide, "high": change + wide}
    verdict = "changed" if abs(change) > wide else "not shown to change"
    sides = {"before": interval(before), "after": interval(after), "difference": difference}
    return {"images": images, "is_share": is_share, **sides, "verdict": verdict, "comparisons": 1}


def make_effects(base: dict[str, Any], erased: dict[str, Any]) -> dict[str, Any]:
    """The effects that two sides come to."""
    then, now = base["scores"], erased["scores"]
    keys = {"UA": "UA", "IRA": "IRA", "none_erased": "none, erased", "none_kept": "none, kept"}
    scores = {
        name: make_effect(then[key], now[key], 30 if key in ("UA", "none_erased") else 210)
        for key, name in keys.items()
    }
    counts = {"kept": 210, "erased": 30}
    for domain, side in itertools.product(then["across"], counts):
        values = (then["across"][domain][side], now["across"][domain][side])
        scores[f"CRA {domain}, {side}"] = make_effect(*values, counts[side])
    for side, images in counts.items():
        scores[f"CLIP, {side}"] = make_effect(then[f"clip_{side}"], now[f"clip_{side}"], images, False)
    pairs = {c: (base["concepts"][c], erased["concepts"][c]) for c in base["concepts"]}
    concepts = {c: make_effect(b["accuracy"], e["accuracy"], e["images"]) for c, (b, e) in pairs.items()}
    return {"scores": scores, "concepts": concepts}


def make_fate(concept: str, cosine: float | None, verdict: str) -> dict[str, Any]:
    found = make_effect(0.995, 0.989, 30)
    change = {"difference": found["difference"], "verdict": found["verdict"]}
    sides = {"before": found["before"], "after": found["after"], "change": change}
    return {"concept": concept, "cosine": cosine, "images": 30, **sides, "verdict": verdict}


def make_results() -> dict[str, Any]:
    base, erased = make_side("shapes", 1.0, 0.995, 31.0), make_side("shapes without star", 0.03, 0.989, 12.34)
    return {
        "effects": make_effects(base, erased),
        "collateral": [make_fate("heart", 0.91, "kept"), make_fate("red", None, "lost")],
        "target": "star",
        "domain": "object",
        "command": "erase demo --target star --output runs/demo",
        "erase_command": "erase train --config shapes --output_dir runs/it",
        "base": base,
        "erased": erased,
        "prompts": {"count": 240, "hash": "hash-of-prompts", "evaluation_seed": 0, "seeds": list(range(10000, 10240))},
        "sampling": {"steps": 15, "guidance_scale": 4.0, "scheduler": "DDIMScheduler"},
        "metrics": {
            "classifier": {"model": "shapes/classifier", "hash": "hash-of-judge"},
            "clip_score": {"scale": "100 x cosine"},
        },
        "training": {"update": {"name": "lur", "alpha": {"ratio": 0.1}}, "counts": {"seconds": 98.765432}},
        "environment": {"python": "3.13.1", "libraries": {"torch": "2.11.0", "peft": None}, "git_commit": "abc123"},
    }


def test_verdict_says_the_scores_in_plain_words() -> None:
    assert verdict(make_results()) == (
        "star is gone from 97 % of its 30 pictures (95 % interval 92.0 to 100.0); other objects: 99.5 % right before, "
        "98.9 % after (not shown to change)"
    )


def test_verdict_of_a_failed_erasure_says_so() -> None:
    results = make_results()
    results["effects"]["scores"]["UA"] = make_effect(0.0, 0.0, 30)
    assert verdict(results).startswith("star is gone from 0 % of its 30 pictures")


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (1.0, "100 %"), (0.99996, "99.9 %"), (0.00001, "0.1 %"), (29 / 30, "96.7 %")]
)
def test_percent_rounds_neither_to_none_nor_to_all(share: float, text: str) -> None:
    assert percent(share) == text


def test_points_have_a_sign_but_zero_has_none() -> None:
    assert [points(1.0, 0.03), points(0.5, 0.5001), points(0.5, 0.49999), points(0.2, 0.25)] == [
        "-97.0",
        "0.0",
        "0.0",
        "+5.0",
    ]


def test_plural_of_domains() -> None:
    assert [plural("object"), plural("class"), plural("style")] == ["objects", "classes", "styles"]


def test_concept_groups_hold_every_concept_once_and_target_first() -> None:
    results = make_results()
    groups = concept_groups(results)
    assert [row.name for row in groups[0].rows] == ["star"]
    assert [len(group.rows) for group in groups] == [1, 7, 6, 5]
    assert {row.name for group in groups for row in group.rows} == set(results["base"]["concepts"])


def test_target_that_comes_last_is_still_the_first_group() -> None:
    results = make_results()
    for side in ("base", "erased"):
        results[side]["concepts"]["star"] = results[side]["concepts"].pop("star")
    assert concept_groups(results)[0].rows[0].name == "star"


def test_score_rows_count_their_pictures_and_say_what_they_mean() -> None:
    rows = {row.name: row for row in score_rows(make_results())}
    assert [rows[name].images for name in ("UA", "IRA", "CRA color, kept")] == [30, 210, 210]
    assert rows["CRA color, erased"].meaning == "color seen as asked where star is asked for"
    assert rows["UA"].wanted == "high after" and rows["UA"].verdict == "changed"


def test_a_row_shows_shares_in_percent_and_scores_as_they_are() -> None:
    share, score = Row("a", make_effect(1.0, 0.9, 10)), Row("b", make_effect(30.0, 12.25, 10, False))
    assert [share.show("after"), share.interval("after"), share.difference] == ["90.0 %", "85.0 to 95.0", "-10.0"]
    assert share.difference_interval == "-15.0 to -5.0"
    assert [score.show("after"), score.interval("after"), score.difference] == ["12.2", "11.8 to 12.8", "-17.8"]


def test_neighbours_come_in_the_order_of_the_results() -> None:
    rows = collateral_rows(make_results())
    assert [(row.name, row.similarity, row.fate) for row in rows] == [("heart", 0.91, "kept"), ("red", None, "lost")]


def test_print_table_prints_all_figures_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(make_results())
    printed = capsys.readouterr().out
    star = next(line for line in printed.splitlines() if " star " in line and "100.0 %" in line)
    assert [part for part in ("3.0 %", "-97.0", "31.0", "12.3", "30") if part not in star] == []
    assert verdict(make_results()) in printed
    assert "\x1b" not in printed


def test_print_table_takes_names_that_look_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    results = copy.deepcopy(make_results())
    for concepts in (results["base"]["concepts"], results["erased"]["concepts"], results["effects"]["concepts"]):
        concepts["[red]rose[/]"] = concepts.pop("heart")
    print_table(results)
    assert "[red]rose[/]" in capsys.readouterr().out
