from __future__ import annotations

import copy
from typing import Any

import pytest

from erase import embedded
from erase.evaluation.table import concept_groups, percent, plural, points, print_table, score_rows, verdict


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


def make_results() -> dict[str, Any]:
    return {
        "target": "star",
        "domain": "object",
        "command": "erase demo --target star --output runs/demo",
        "erase_command": "erase train --config shapes --output_dir runs/it",
        "base": make_side("shapes", 1.0, 0.995, 31.0),
        "erased": make_side("shapes without star", 0.03, 0.989, 12.34),
        "prompts": {"count": 240, "hash": "hash-of-prompts", "evaluation_seed": 0, "seeds": list(range(10000, 10240))},
        "sampling": {"steps": 15, "guidance_scale": 4.0, "scheduler": "DDIMScheduler"},
        "metrics": {
            "classifier": {"model": "shapes/classifier", "hash": "hash-of-judge"},
            "clip": {"scale": "100 x cosine"},
        },
        "training": {"update": {"name": "lur", "alpha": {"ratio": 0.1}}, "counts": {"seconds": 98.765432}},
        "environment": {"python": "3.13.1", "libraries": {"torch": "2.11.0", "peft": None}, "git_commit": "abc123"},
    }


def test_verdict_says_the_scores_in_plain_words() -> None:
    assert verdict(make_results()) == (
        "star is gone from 97 % of its pictures; other objects: 99.5 % right before, 98.9 % after"
    )


def test_verdict_of_a_failed_erasure_says_so() -> None:
    results = make_results()
    results["erased"]["scores"]["UA"] = 0.0
    assert verdict(results).startswith("star is gone from 0 % of its pictures")


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
    assert [row.concept for row in groups[0].rows] == ["star"]
    assert [len(group.rows) for group in groups] == [1, 7, 6, 5]
    assert {row.concept for group in groups for row in group.rows} == set(results["base"]["concepts"])


def test_target_that_comes_last_is_still_the_first_group() -> None:
    results = make_results()
    for side in ("base", "erased"):
        results[side]["concepts"]["star"] = results[side]["concepts"].pop("star")
    assert concept_groups(results)[0].rows[0].concept == "star"


def test_score_rows_count_their_judgments() -> None:
    judgments = {row.name: row.measured_on for row in score_rows(make_results())}
    assert (judgments["UA"], judgments["IRA"], judgments["CRA color, kept prompts"]) == (30, 210, 210)


def test_print_table_prints_all_figures_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(make_results())
    printed = capsys.readouterr().out
    star = next(line for line in printed.splitlines() if " star " in line and "100.0 %" in line)
    assert [part for part in ("3.0 %", "-97.0", "31.0", "12.3", "30") if part not in star] == []
    assert verdict(make_results()) in printed
    assert "\x1b" not in printed


def test_print_table_takes_names_that_look_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    results = copy.deepcopy(make_results())
    for side in ("base", "erased"):
        results[side]["concepts"]["[red]rose[/]"] = results[side]["concepts"].pop("heart")
    print_table(results)
    assert "[red]rose[/]" in capsys.readouterr().out
