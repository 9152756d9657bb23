"""The page of one unlearning: its words, its numbers, and that it stands alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erase.errors import UserError
from erase.evaluation.plots import PAGE_COLORS
from erase.evaluation.report import TEMPLATES
from erase.evaluation.unlearning import report
from erase.evaluation.unlearning.judge import judge, measure
from erase.evaluation.unlearning.outputs import Outputs
from erase.evaluation.unlearning.report import SIDES, Results, distributions, render, verdict, write_report
from tests.unit.evaluation.test_plots import parse
from tests.unit.evaluation.test_report import Page
from tests.unit.evaluation.unlearning.made_outputs import made_parts

OUTPUTS = {
    "original": made_parts(0, forget=5.0),
    "retrained": made_parts(0, forget=1.0),
    "unlearned": made_parts(0, forget=1.5),
}
JUDGED = {side: judge(parts, None if side == "retrained" else OUTPUTS["retrained"]) for side, parts in OUTPUTS.items()}
JUDGED["retrained"]["RTE"], JUDGED["unlearned"]["RTE"] = measure("RTE", 200.0), measure("RTE", 10.0)
RESULTS = Results(
    forgotten="10 % of the training samples",
    model="resnet18",
    method="LUR",
    judged=JUDGED,
    command="python pipelines/unlearn_class.py --seed 3",
    facts={"Data": {"name": "digits", "forget_hash": "abc123"}, "Environment": {}},
)
EVIL = "<script>document.title = 'broken'</script>\"' onerror="


def cells(page: str, name: str) -> list[str]:
    return next(row[1:] for row in Page(page).rows if row and row[0].startswith(name))


def test_verdict_compares_with_retraining_and_with_doing_nothing() -> None:
    scores = {side: {key: entry["value"] for key, entry in judged.items()} for side, judged in JUDGED.items()}
    own, other, before = (scores[side] for side in ("unlearned", "retrained", "original"))
    assert verdict(RESULTS) == (
        f"after LUR, {own['UA']:.1f} % of the forget set is misclassified ({before['UA']:.1f} % before), where "
        f"retraining comes to {other['UA']:.1f} %; on the test set {own['TA']:.1f} % is right, "
        f"retrained {other['TA']:.1f} %. The average gap to retraining is {own['Avg_gap']:.2f} points, "
        f"doing nothing has {before['Avg_gap']:.2f}; it took 5.0 % of retraining's time"
    )


@pytest.mark.parametrize(("retrained", "shown"), [("cpu", True), ("cuda", False), (None, False)])
def test_verdict_compares_run_times_of_one_device_alone(retrained: str | None, shown: bool) -> None:
    timed = {"retrained": measure("RTE", 200.0, device=retrained), "unlearned": measure("RTE", 10.0, device="cpu")}
    judged = {side: {**of, **({"RTE": timed[side]} if side in timed else {})} for side, of in JUDGED.items()}
    assert ("of retraining's time" in verdict(replace(RESULTS, judged=judged))) is shown


def test_verdict_without_a_retrained_model_says_what_is_missing() -> None:
    alone = replace(RESULTS, judged={"unlearned": judge(OUTPUTS["unlearned"])})
    assert "No retrained model says how good that is" in verdict(alone)
    assert "Avg. Gap" not in render(alone, {})


def test_table_holds_the_numbers_of_all_three_models() -> None:
    page = render(RESULTS, OUTPUTS)
    for key, name in (("UA", "UA, %"), ("MIA", "MIA, %"), ("MIA_loss", "MIA, loss, %")):
        assert cells(page, name)[:3] == [f"{JUDGED[side][key]['value']:.1f}" for side in SIDES]
    assert cells(page, "Avg. Gap")[1] == "–"  # retraining has no distance to itself
    assert cells(page, "RTE")[:3] == ["–", "200.0", "10.0"]


def test_every_attack_says_which_way_it_points() -> None:
    page = render(RESULTS, OUTPUTS)
    assert page.count("share of the forget set called non-member") == 5
    assert page.count("share of the forget set called member") == 1
    assert page.count("share of forget and test samples told apart") == 1


def test_an_attack_that_was_not_made_says_why() -> None:
    few = Outputs(OUTPUTS["unlearned"]["forget"].logits[:3], OUTPUTS["unlearned"]["forget"].labels[:3])
    page = render(replace(RESULTS, judged={"unlearned": judge(OUTPUTS["unlearned"] | {"forget": few})}), {})
    assert "not measured: loss attack: found 3 samples" in page


def test_sections_come_in_order() -> None:
    assert re.findall(r'<section id="(\w+)"', render(RESULTS, OUTPUTS)) == ["numbers", "confidence", "reproduce"]
    assert re.findall(r'<section id="(\w+)"', render(RESULTS, {})) == ["numbers", "reproduce"]


def test_words_from_outside_show_as_text() -> None:
    evil = replace(RESULTS, forgotten=EVIL, model=EVIL, method=EVIL, command=EVIL, facts={EVIL: {EVIL: EVIL}})
    page = render(evil, OUTPUTS)
    assert "<script" not in page
    assert page.count("&lt;script&gt;document") == 9
    assert not any("onerror" in attributes for _, attributes in Page(page).elements)


def test_page_asks_nothing_of_a_network_and_runs_no_script() -> None:
    text = render(RESULTS, OUTPUTS)
    page = Page(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#"))
    assert page.all("script") == []
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_page_has_the_style_of_the_audit_by_day_and_night() -> None:
    page = render(RESULTS, OUTPUTS)
    assert (TEMPLATES / "report.css").read_text(encoding="utf-8") in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert "prefers-color-scheme: dark" in page


def test_ids_are_unique_and_labels_point_to_them() -> None:
    page = Page(render(RESULTS, OUTPUTS))
    ids = [name for _, attributes in page.elements if (name := attributes.get("id"))]
    labels = [name for _, a in page.elements for name in (a.get("aria-labelledby") or "").split()]
    assert len(ids) == len(set(ids))
    assert set(labels) <= set(ids)
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in ids}


def test_distributions_are_named_described_and_in_the_colors_of_the_page() -> None:
    plots = distributions(OUTPUTS)
    assert [plot.title for plot in plots] == ["Original model", "Retrained model", "Unlearned model"]
    for plot in plots:
        root = parse(plot.svg)
        assert "median confidence" in "".join(root.itertext())
        words = ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")]
        assert {"forget", "test", "50 %", "confidence in the label"} <= set(words)
        assert not any(stand_in in plot.svg for stand_in in PAGE_COLORS)
        assert "var(--forget)" in plot.svg and "var(--retain)" in plot.svg


def test_each_name_has_its_own_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], report._histogram

    def watched(axes: Any, label: str, part: Any, color: str) -> None:
        drawn.append((label, part))
        draw(axes, label, part, color)

    monkeypatch.setattr(report, "_histogram", watched)
    distributions({"unlearned": OUTPUTS["unlearned"]})
    assert [label for label, _ in drawn] == ["forget", "test"]
    assert all(part is OUTPUTS["unlearned"][label] for label, part in drawn)


def test_page_tells_how_to_make_it_again() -> None:
    page = render(RESULTS, OUTPUTS)
    assert "python pipelines/unlearn_class.py --seed 3" in page
    assert "<dt>forget hash</dt><dd>abc123</dd>" in page
    assert "<h3>Environment</h3>" not in page  # nothing is recorded there
    assert "The command was not recorded" in render(replace(RESULTS, command=""), {})


def test_written_page_is_one_small_file(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", RESULTS, OUTPUTS)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_a_page_without_the_unlearned_model_is_refused() -> None:
    with pytest.raises(UserError, match="found original; it is of original, retrained, unlearned"):
        render(replace(RESULTS, judged={"original": JUDGED["original"]}), {})
