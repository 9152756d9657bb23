"""Effects: which pictures a measure is taken of, what its mean is, and when a change is called one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from erase.errors import UserError
from erase.evaluation.effects import concept_measures, effect, effects, measures
from erase.evaluation.intervals import CHANGED, NOT_SHOWN, TOO_FEW, wilson
from erase.evaluation.scores import Judged, summarize

ASKED = [{"object": "star" if n % 3 == 0 else "ring", "color": ("red", "blue")[n % 2]} for n in range(60)]


def before() -> list[Judged]:
    """All as asked, but one ring that is a star."""
    return [Judged(a, a if n != 1 else a | {"object": "star"}, 30.0 + n % 5) for n, a in enumerate(ASKED)]


def after() -> list[Judged]:
    """18 of the 20 stars are moons or nothing; two rings are lost, and three colors of stars."""
    found, stars = [], 0
    for n, asked in enumerate(ASKED):
        seen = dict(asked)
        if asked["object"] == "star":
            stars += 1
            seen |= {"object": "none" if stars == 1 else "moon" if stars <= 18 else "star"}
            seen |= {"color": "green"} if stars <= 3 else {}
        elif n in (4, 7):
            seen |= {"object": "moon"}
        found.append(Judged(asked, seen, 20.0 + n % 5 if asked["object"] == "star" else 30.0 + n % 5))
    return found


def scores() -> dict[str, dict[str, object]]:
    return effects(measures("star", "object", ["object", "color"], "none"), before(), after())


def test_the_figures_are_those_worked_by_hand() -> None:
    found = {key: (e["images"], e["before"]["estimate"], e["after"]["estimate"]) for key, e in scores().items()}  # type: ignore[index]
    assert found == {
        "UA": (20, 0.0, 18 / 20),
        "IRA": (40, 39 / 40, 38 / 40),
        "CRA color, kept": (40, 1.0, 1.0),
        "CRA color, erased": (20, 1.0, 17 / 20),
        "none, kept": (40, 0.0, 0.0),
        "none, erased": (20, 0.0, 1 / 20),
        "CLIP, kept": (40, pytest.approx(32.0), pytest.approx(32.0)),
        "CLIP, erased": (20, pytest.approx(32.0), pytest.approx(22.0)),
    }


def test_they_agree_with_the_summary() -> None:
    for side, judged in (("before", before()), ("after", after())):
        summary = summarize(judged, "star", "object", "none")
        found = {key: e[side]["estimate"] for key, e in scores().items()}  # type: ignore[index]
        assert [found["UA"], found["IRA"], found["none, erased"]] == pytest.approx(
            [summary["UA"], summary["IRA"], summary["none_erased"]]
        )
        assert found["CLIP, erased"] == pytest.approx(summary["clip_erased"])
        assert found["CRA color, erased"] == pytest.approx(summary["across"]["color"]["erased"])


def test_what_changed_is_called_so_and_the_rest_is_not() -> None:
    verdicts = {key: e["verdict"] for key, e in scores().items()}
    assert verdicts["UA"] == verdicts["CLIP, erased"] == CHANGED
    assert verdicts["IRA"] == verdicts["none, kept"] == verdicts["none, erased"] == NOT_SHOWN


def test_a_side_has_wilson_interval_of_its_own_pictures() -> None:
    found, expected = scores()["UA"]["after"], wilson(18, 20)
    assert (found["low"], found["high"]) == (expected.low, expected.high)  # type: ignore[index]


def test_pictures_of_one_prompt_count_as_one() -> None:
    """Ten prompts with six equal pictures each tell no more than ten pictures do."""
    prompts = [n for n in range(10) for _ in range(6)]
    then, now = [True] * 60, [n >= 2 for n in prompts]
    copies, alone = effect(then, now, True, prompts), effect([True] * 10, [n >= 2 for n in range(10)], True)
    for what in ("before", "after", "difference"):
        limits = [[found[what][key] for key in ("low", "high", "n")] for found in (copies, alone)]
        assert limits[0] == pytest.approx(limits[1]), what
    assert copies["difference"]["n"] == 10 and copies["images"] == 60
    assert copies["before"]["high"] - copies["before"]["low"] > 0.2  # all of them, yet ten prompts are not certain
    pretended = effect(then, now, True)
    assert (pretended["verdict"], copies["verdict"]) == (CHANGED, NOT_SHOWN)


def test_a_single_picture_is_too_few() -> None:
    found = effect([True], [False], True)
    assert found["verdict"] == TOO_FEW and found["before"]["low"] < 1
    clustered = effect([1.0, 1.0], [0.0, 0.0], False, ["a", "a"])
    assert clustered["verdict"] == TOO_FEW and clustered["before"]["low"] is None


def test_each_concept_is_counted_where_it_is_asked_for() -> None:
    found = effects(concept_measures({"object": ["star", "ring"], "color": ["red", "green"]}), before(), after())
    assert {key: e["images"] for key, e in found.items()} == {"star": 20, "ring": 40, "red": 30}
    assert found["star"]["after"]["estimate"] == pytest.approx(2 / 20)


def test_measures_that_say_what_they_ask_for_are_looked_up_and_none_is_asked_picture_by_picture() -> None:
    def never(picture: Judged) -> bool:
        raise AssertionError(picture)

    looked_up = concept_measures({"object": ["star", "ring"], "color": ["red", "mauve"]})
    found = effects([replace(measure, counts=never) for measure in looked_up], before(), after())
    assert found == effects([replace(measure, asks=None) for measure in looked_up], before(), after())
    assert set(found) == {"star", "ring", "red"}


def test_a_name_that_two_domains_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"prompts: 'orange' is a concept of fruit and of color; .* name them apart"):
        concept_measures({"fruit": ["orange", "pear"], "size": ["big"], "color": ["red", "orange"]})


def test_prompts_of_several_pictures_hold_for_every_measure() -> None:
    prompts = [n // 3 for n in range(60)]
    found = effects(concept_measures({"object": ["ring"]}), before(), after(), prompts)["ring"]
    assert (found["images"], found["before"]["n"], found["difference"]["n"]) == (40, 20, 20)
    assert found["before"]["estimate"] == pytest.approx(39 / 40)


def test_more_measures_make_each_harder_to_call_changed() -> None:
    alone = effect([True] * 40, [True] * 35 + [False] * 5, True)
    among = effect([True] * 40, [True] * 35 + [False] * 5, True, comparisons=50)
    assert among["difference"]["low"] < alone["difference"]["low"]
    assert (alone["verdict"], among["verdict"]) == (CHANGED, NOT_SHOWN)
