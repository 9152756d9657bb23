"""UA, IRA and CRA worked by hand, and what is said of an empty set."""

from __future__ import annotations

import pytest

from erase.errors import UserError
from erase.evaluation.scores import Judged, accuracy, per_concept, share, summarize


def picture(asked: str, seen: str, clip: float = 20.0) -> Judged:
    """``"red star"`` was asked for, ``"red none"`` was seen."""
    (color, object_), (seen_color, seen_object) = asked.split(), seen.split()
    return Judged({"object": object_, "color": color}, {"object": seen_object, "color": seen_color}, clip)


PICTURES = [
    picture("red star", "red none", 10.0),  # gone
    picture("blue star", "red circle", 12.0),  # gone, the color with it
    picture("blue star", "blue star", 14.0),  # still there
    picture("red star", "none heart", 16.0),  # gone
    picture("red circle", "red circle", 30.0),
    picture("blue circle", "blue star", 31.0),  # kept object lost
    picture("red heart", "blue heart", 32.0),  # kept color lost
    picture("blue heart", "blue none", 33.0),  # kept object lost
    picture("red moon", "red moon", 34.0),
]


def test_the_scores_are_those_worked_by_hand() -> None:
    assert summarize(PICTURES, "star", "object", "none") == {
        "UA": 3 / 4,
        "IRA": 3 / 5,
        "CRA_kept": 4 / 5,
        "CRA_erased": 2 / 4,
        "across": {"color": {"kept": 4 / 5, "erased": 2 / 4}},
        "none_erased": 1 / 4,
        "none_kept": 1 / 5,
        "clip_erased": 13.0,
        "clip_kept": 32.0,
        "images_erased": 4,
        "images_kept": 5,
    }


def test_another_domain_counts_other_pictures() -> None:
    found = summarize(PICTURES, "red", "color", "none")
    assert found["images_erased"] == 5
    assert found["UA"] == 2 / 5  # the red star seen as none, the red heart seen as blue
    assert found["IRA"] == 3 / 4  # of the blue ones
    assert found["CRA_kept"] == 1 / 4
    assert found["CRA_erased"] == 3 / 5


def test_a_perfect_erasure_and_an_untouched_model_are_the_ends_of_the_scale() -> None:
    erased = [picture("red star", "red circle"), picture("red circle", "red circle")]
    untouched = [picture("red star", "red star"), picture("red circle", "red circle")]
    assert [summarize(erased, "star", "object", "none")[name] for name in ("UA", "IRA", "CRA_kept")] == [1, 1, 1]
    assert [summarize(untouched, "star", "object", "none")[name] for name in ("UA", "IRA", "CRA_erased")] == [0, 1, 1]


def test_the_order_of_the_pictures_does_not_matter() -> None:
    assert summarize(PICTURES[::-1], "star", "object", "none") == summarize(PICTURES, "star", "object", "none")


def test_cra_is_the_mean_over_all_other_domains() -> None:
    def full(color: str, style: str, object_: str = "star") -> Judged:
        asked = {"object": object_, "color": "red", "style": "flat"}
        return Judged(asked, {"object": "circle", "color": color, "style": style}, 0.0)

    pictures = [full("red", "flat"), full("red", "dotted"), full("blue", "dotted"), full("red", "flat", "circle")]
    found = summarize(pictures, "star", "object", "none")
    assert found["CRA_erased"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["across"]["color"] == {"kept": 1.0, "erased": 2 / 3}
    assert found["across"]["style"] == {"kept": 1.0, "erased": 1 / 3}
    assert found["CRA_kept"] == 1.0


@pytest.mark.parametrize(
    ("pictures", "target", "what"),
    [
        ([], "star", "UA"),
        ([picture("red star", "red star")], "moon", "UA"),
    ],
)
def test_an_empty_set_is_an_error_that_names_the_score(pictures: list[Judged], target: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        summarize(pictures, target, "object", "none")
    assert str(caught.value) == f"evaluation: no pictures to measure {what} on; add prompts"


def test_a_share_counts_what_holds() -> None:
    assert share(PICTURES, lambda p: p.clip >= 32, "clip") == 3 / 9
    assert share(PICTURES, lambda _: True, "all") == 1.0
    with pytest.raises(UserError, match="no pictures to measure this on"):
        share([], lambda _: True, "this")


def test_accuracy_is_over_pairs_of_picture_and_domain() -> None:
    assert accuracy(PICTURES[:2], ["object", "color"], "both") == 1 / 4
    assert accuracy(PICTURES[4:], ["object", "color"], "both") == 7 / 10


def test_each_concept_has_its_own_line() -> None:
    table = per_concept(PICTURES)
    assert list(table) == ["star", "circle", "heart", "moon", "red", "blue"]
    assert table["star"] == {"domain": "object", "accuracy": 1 / 4, "clip": 13.0, "images": 4}
    assert table["heart"] == {"domain": "object", "accuracy": 1 / 2, "clip": 32.5, "images": 2}
    assert table["blue"] == {"domain": "color", "accuracy": 3 / 4, "clip": 22.5, "images": 4}


def test_a_prompt_that_leaves_a_domain_open_counts_in_the_others() -> None:
    open_color = Judged({"object": "star"}, {"object": "star", "color": "red"}, 40.0)
    table = per_concept([*PICTURES, open_color])
    assert table["star"]["images"] == 5 and table["star"]["accuracy"] == 2 / 5
    assert table["red"]["images"] == 5


def test_there_is_no_ira_where_no_prompt_asks_for_another_concept() -> None:
    scores = summarize([picture("red star", "red moon")], "star", "object", "none")
    assert (scores["UA"], scores["IRA"], scores["clip_kept"], scores["none_kept"]) == (1.0, None, None, None)


def test_a_judge_without_a_label_for_nothing_has_no_share_of_it() -> None:
    with_label, without = (summarize(PICTURES, "star", "object", none) for none in ("none", None))
    assert with_label["none_erased"] == 1 / 4
    assert without == with_label | {"none_erased": None, "none_kept": None}
