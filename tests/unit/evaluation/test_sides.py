"""The two sides of an audit: what a judge is asked, and which pictures tell more than one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erase.evaluation.audit_settings import Audit, AuditPlan
from erase.evaluation.effects import effects, measures
from erase.evaluation.metrics.nudity import EXPOSED
from erase.evaluation.metrics.store import ScoreTable
from erase.evaluation.other_findings import nudity, other_judges
from erase.evaluation.sides import Side, kept_places, prompts_of
from erase.generation.folder import ImageFolder, Picture

ASKED = ("nude", "swimsuit", "nude", "swimsuit")


def picture(n: int, concept: str, prompt: str = "") -> Picture:
    return Picture(str(n), 0, prompt or f"{concept}, {n}", n, "", {"concept": concept}, Path(f"{n}.png"), "0")


def judged_by_nudity(scores: list[float]) -> tuple[AuditPlan, Side]:
    """A detector that finds one part, in each picture with a score."""
    audit = Audit(erased="run", target="nude", judge="nudity")
    plan = AuditPlan(audit, Path("audit"), (), "concept", {}, (), "nudity")
    keys: dict[str, list[Any]] = {
        "case_number": [str(n) for n in range(len(scores))],
        "k": [0] * len(scores),
        "sha256": ["0"] * len(scores),
    }
    parts: dict[str, list[Any]] = {name: [0.0] * len(scores) for name in EXPOSED} | {EXPOSED[0]: scores}
    parts["detections"] = ["[]"] * len(scores)
    tables = {"nudity": keys | parts, "clip_score": keys | {"clip_score": [30.0] * len(scores)}}
    columns = {"zero_shot": "zero_shot/concept", "imagenet_classifier": "seen/concept"}
    tables |= {judge: keys | {column: list(ASKED)} for judge, column in columns.items()}
    folder = ImageFolder(Path("images"), {}, [picture(n, concept) for n, concept in enumerate(ASKED)])
    return plan, Side(folder, {name: ScoreTable(name, {}, columns) for name, columns in tables.items()})


def test_the_judge_of_nudity_is_asked_for_the_target_alone() -> None:
    """It has no word for a swimsuit: that none was recognized says nothing of what was kept."""
    plan, before = judged_by_nudity([0.9, 0.1, 0.9, 0.1])
    after = judged_by_nudity([0.1, 0.1, 0.9, 0.1])[1]
    sides = [side.judged(plan) for side in (before, after)]
    assert [dict(one.asked) for one in sides[0]] == [{"concept": "nude"}, {}, {"concept": "nude"}, {}]
    found = effects(measures("nude", "concept", ["concept"], None), *sides)
    assert set(found) == {"UA", "CLIP, kept", "CLIP, erased"}
    assert (found["UA"]["before"]["estimate"], found["UA"]["after"]["estimate"]) == (0.0, 0.5)
    assert kept_places(plan, before.folder.pictures) == [1, 3]


def test_intervals_hold_for_all_rows_of_their_table() -> None:
    """Nudity: four thresholds on both sides of the split; other judges: two scores of two of them."""
    plan, before = judged_by_nudity([0.9, 0.1, 0.9, 0.1])
    after = judged_by_nudity([0.1, 0.1, 0.9, 0.1])[1]
    exposed, judges = nudity(plan, before, after), other_judges(plan, before, after)
    assert exposed is not None and set(judges) == {"zero_shot", "imagenet_classifier"}
    shown = [effect for side in exposed.values() for effect in side["effects"].values()]
    assert (len(shown), {effect["comparisons"] for effect in shown}) == (8, {8})
    rows = [effect for found in judges.values() for effect in found.values()]
    assert (len(rows), {effect["comparisons"] for effect in rows}) == (4, {4})


def test_rows_that_repeat_a_prompt_are_as_one_row_of_several_pictures() -> None:
    rows = [picture(n, "church", "an image of a church") for n in range(3)]
    assert prompts_of(rows, [0, 1, 2]) == ["an image of a church"] * 3
    assert prompts_of([*rows, picture(3, "church")], [0, 3]) is None
