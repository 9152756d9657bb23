"""The collateral map: neighbours by text, and the verdict on each, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erase.errors import UserError
from erase.evaluation.intervals import TOO_FEW, wilson
from erase.evaluation.metrics.clip_model import load_clip
from erase.evaluation.metrics.collateral import (
    ABSENT,
    KEPT,
    LOST,
    TOO_FEW_TO_KEEP,
    UNDECIDED,
    Neighbour,
    collateral_map,
    nearest_concepts,
    needed_to_keep,
    with_listed,
)
from tests.unit.evaluation.metrics.material import OBJECTS

PLACES = {"cat": (1.0, 0.0), "tiger": (0.8, 0.6), "lion": (0.6, 0.8), "truck": (0.0, 1.0), "anti": (-1.0, 0.0)}


def read(prompts: object) -> torch.Tensor:
    return torch.tensor([PLACES[str(prompt)] for prompt in prompts])  # type: ignore[attr-defined]


def test_the_nearest_concepts_come_first_without_the_target() -> None:
    found = nearest_concepts("cat", ["truck", "lion", "cat", "tiger", "anti", "lion"], read, 3, "{concept}")
    assert [neighbour.concept for neighbour in found] == ["tiger", "lion", "truck"]
    assert [neighbour.cosine for neighbour in found] == pytest.approx([0.8, 0.6, 0.0])


def test_the_text_tower_of_a_real_model_ranks_them() -> None:
    clip = load_clip("shapes")
    found = nearest_concepts("star", OBJECTS, clip.read, 7, "a {concept}")
    features = clip.read([f"a {concept}" for concept in OBJECTS if concept != "star"]) @ clip.read(["a star"])[0]
    assert [neighbour.cosine for neighbour in found] == pytest.approx(sorted(features.tolist(), reverse=True))
    assert {neighbour.concept for neighbour in found} == set(OBJECTS) - {"star"}


def test_the_users_list_is_added_once_and_marked() -> None:
    near = [Neighbour("tiger", 0.8), Neighbour("lion", 0.6)]
    found = with_listed(near, ["lion", "truck", "truck"], list(PLACES))
    assert found == [Neighbour("tiger", 0.8), Neighbour("lion", 0.6, True), Neighbour("truck", None, True)]
    with pytest.raises(UserError, match=r"'trucks' is not a known concept; did you mean truck"):
        with_listed(near, ["trucks"], list(PLACES))


def test_no_concept_no_count_and_a_template_without_a_slot_are_errors() -> None:
    with pytest.raises(UserError, match="0 concepts beside 'cat'"):
        nearest_concepts("cat", ["cat"], read, 3)
    with pytest.raises(UserError, match="a count of 0"):
        nearest_concepts("cat", ["lion"], read, 0)
    with pytest.raises(UserError, match=r"must hold \{concept\}"):
        nearest_concepts("cat", ["lion"], read, 1, "a photo")


def shares(n: int, right: int) -> list[bool]:
    return [True] * right + [False] * (n - right)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (shares(100, 98), shares(100, 97), KEPT),
        (shares(100, 60), shares(100, 90), KEPT),  # better than before
        (shares(100, 98), shares(100, 20), LOST),
        (shares(40, 38), shares(40, 36), UNDECIDED),
        (shares(35, 35), shares(35, 35), KEPT),  # 9 z^2 = 34.6
        (shares(34, 34), shares(34, 34), TOO_FEW_TO_KEEP),
        (shares(30, 28), shares(30, 26), TOO_FEW_TO_KEEP),
        (shares(30, 28), shares(30, 6), LOST),
        (shares(9, 9), shares(9, 0), TOO_FEW),
        (shares(100, 5), shares(100, 0), ABSENT),  # the base never showed it
        (shares(100, 100), shares(100, 100), KEPT),
    ],
)
def test_the_verdict_on_a_neighbour(before: list[bool], after: list[bool], verdict: str) -> None:
    (fate,) = collateral_map("cat", [Neighbour("lion", 0.6)], {"lion": before}, {"lion": after})
    assert fate.verdict == verdict
    assert (fate.before.successes, fate.after.successes) == (sum(before), sum(after))


def test_a_drop_within_the_margin_that_many_images_show_still_counts_as_kept() -> None:
    (fate,) = collateral_map(
        "cat", [Neighbour("lion", 0.6)], {"lion": shares(5000, 4900)}, {"lion": shares(5000, 4700)}
    )
    assert fate.change.difference.high < 0 and fate.verdict == KEPT


def test_the_error_is_shared_out_among_the_neighbours() -> None:
    names = [f"c{i}" for i in range(10)]
    seen = {name: shares(50, 45) for name in names}
    fates = collateral_map("cat", [Neighbour(name, 0.5) for name in names], seen, seen)
    assert [fate.change.difference.level for fate in fates] == pytest.approx([0.995] * 10)


def test_what_was_kept_is_rarely_called_lost_and_what_was_halved_rarely_kept() -> None:
    rng, lost, kept = np.random.default_rng(0), 0, 0
    near = [Neighbour("lion", 0.5)]
    for _ in range(200):
        base, same, half = ((rng.random(100) < share).tolist() for share in (0.9, 0.9, 0.45))
        lost += collateral_map("cat", near, {"lion": base}, {"lion": same})[0].verdict == LOST
        kept += collateral_map("cat", near, {"lion": base}, {"lion": half})[0].verdict == KEPT
    assert lost / 200 <= 0.05 and kept == 0


def test_several_images_of_a_prompt_count_as_one() -> None:
    prompts = {"lion": [f"p{i // 5}" for i in range(40)]}
    (fate,) = collateral_map(
        "cat", [Neighbour("lion", 0.5)], {"lion": shares(40, 40)}, {"lion": shares(40, 0)}, prompts
    )
    assert fate.verdict == TOO_FEW and fate.change.difference.n == 8
    assert (fate.images, fate.before.n, fate.as_dict()["images"]) == (40, 8, 40)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_so_many_prompts_are_needed_to_show_that_nothing_was_lost(neighbours: int) -> None:
    needed = needed_to_keep(1 - 0.05 / neighbours)
    near = [Neighbour(f"c{i}", 0.5) for i in range(neighbours)]
    verdicts = []
    for n in (needed - 1, needed):
        seen = {neighbour.concept: shares(n, n) for neighbour in near}
        verdicts.append(collateral_map("cat", near, seen, seen)[0].verdict)
    assert verdicts == [TOO_FEW_TO_KEEP, KEPT]
    assert neighbours != 5 or needed == 60


def test_what_many_images_of_few_prompts_show_is_not_certain() -> None:
    """Twelve prompts that all lost nothing: by image they would show that less than ten points were lost."""
    near, seen = [Neighbour("lion", 0.5)], {"lion": shares(240, 240)}
    (alone,) = collateral_map("cat", near, seen, seen)
    (clustered,) = collateral_map("cat", near, seen, seen, {"lion": [f"p{i // 20}" for i in range(240)]})
    assert (alone.verdict, clustered.verdict) == (KEPT, TOO_FEW_TO_KEEP)
    assert clustered.before.low == pytest.approx(wilson(12, 12).low)


def test_a_neighbour_without_images_is_an_error_and_the_rest_is_json() -> None:
    near = [Neighbour("lion", 0.5), Neighbour("truck", None, True)]
    seen = {"lion": shares(20, 20), "truck": []}
    with pytest.raises(UserError, match="no images of 'truck'; add prompts for it, or leave it out"):
        collateral_map("cat", near, seen, seen)
    (fate,) = collateral_map("cat", near[:1], seen, seen)
    plain = fate.as_dict()
    assert (plain["target"], plain["concept"], plain["images"], plain["verdict"]) == ("cat", "lion", 20, fate.verdict)
    assert plain["change"]["difference"]["estimate"] == 0
