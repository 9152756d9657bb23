from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from erase import embedded
from erase.evaluation.report import Pair, choose, data_uri, flatten, misses, rank_kept, render, write_report
from erase.evaluation.table import concept_groups, percent
from erase.shapes.drawing import draw
from tests.unit.evaluation.test_plots import make_log
from tests.unit.evaluation.test_table import make_results

STILL_STARS = {3, 17}
"""Which of the made-up pictures of stars show a star after erasure."""


PICTURES = Path(tempfile.mkdtemp(prefix="report-pictures-"))
atexit.register(shutil.rmtree, PICTURES, ignore_errors=True)


def picture(seen: dict[str, str], seed: int) -> Path:
    file = PICTURES / f"{'-'.join(seen.values())}-{seed}.png"
    Image.fromarray(draw(seen["object"], seen["color"], seen["style"], np.random.default_rng(seed))).save(file)
    return file


def make_pairs() -> list[Pair]:
    """All 240 prompts; stars become rings but for two, and every tenth other picture turns striped."""
    pairs, stars = [], 0
    for seed, caption in enumerate(embedded.VOCABULARY.captions([embedded.FULL_TEMPLATE])):
        asked = dict(caption.concepts)
        after = dict(asked)
        if asked["object"] == "star":
            after["object"] = "star" if stars in STILL_STARS else "ring"
            stars += 1
        elif seed % 10 == 7:
            after |= {"style": "striped"}
        if seed == 5:
            after |= {"object": "heart"}
        shown = (picture(asked, seed), picture(after, seed))
        pairs.append(Pair(caption.text, seed + 2**62, asked, *shown, asked, after))
    return pairs


PAIRS = make_pairs()


class Page(HTMLParser):
    """What a page holds: attributes of its elements, and the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.in_cell = tag in ("td", "th", "span", "small")

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip().replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render_page(results: dict[str, Any] | None = None, pairs: list[Pair] | None = None) -> str:
    return render(results or make_results(), PAIRS if pairs is None else pairs, make_log())


def test_verdict_stands_at_the_top() -> None:
    text = render_page().replace("\N{NO-BREAK SPACE}", " ")
    top = text[: text.index("<main>")]
    assert "star is gone from 97 % of its 30 pictures (95 % interval 92.0 to 100.0)" in top
    assert "other objects: 99.5 % right before, 98.9 % after (not shown to change)." in top


def test_sections_come_in_order() -> None:
    assert re.findall(r'<section id="(\w+)"', render_page()) == [
        "pictures",
        "concepts",
        "neighbours",
        "scores",
        "training",
        "reproduce",
    ]


def test_figures_in_the_table_are_those_of_the_results() -> None:
    results = make_results()
    rows = Page(render_page(results)).rows
    of = {row[0]: row[1:] for row in rows if len(row) == 9}
    for row in [row for group in concept_groups(results) for row in group.rows]:
        before, after = (results[side]["concepts"][row.name] for side in ("base", "erased"))
        assert of[row.name] == [
            percent(before["accuracy"], 1),
            percent(after["accuracy"], 1),
            row.difference,
            row.difference_interval,
            row.verdict,
            f"{before['clip']:.1f}",
            f"{after['clip']:.1f}",
            str(after["images"]),
        ]
    assert of["star"] == ["100.0 %", "3.0 %", "-97.0", "-102.0 to -92.0", "changed", "31.0", "12.3", "30"]
    assert ["heart", "0.91", "99.5 %", "98.9 %", "-0.6", "-5.6 to +4.4", "kept"] in rows
    assert ["red", "by hand", "99.5 %", "98.9 %", "-0.6", "-5.6 to +4.4", "lost"] in rows


def test_words_from_outside_show_as_text() -> None:
    results, evil = make_results(), "<script>document.title = 'broken'</script>\"' onerror="
    results["command"] = evil
    for concepts in (results["base"]["concepts"], results["erased"]["concepts"], results["effects"]["concepts"]):
        concepts[evil] = concepts["ring"]
    pair = Pair(evil, 1, {"object": "star"}, PAIRS[0].before, PAIRS[0].after, {"object": evil}, {"object": evil})
    page = render_page(results, [pair])
    assert "<script>document" not in page
    assert "&lt;script&gt;document" in page
    assert len(Page(page).all("script")) == 1


def test_every_picture_says_what_it_shows() -> None:
    pictures = [image for image in Page(render_page()).all("img") if "data-part" not in image]
    assert len(pictures) == 2 * (24 + 7 * 6 + 6)  # red is looked at by hand
    for image in pictures:
        assert re.fullmatch(
            r"a \w+ \w+ in \w+ style, (before|after) erasure: seen as \w+, \w+, \w+", image["alt"] or ""
        )
        assert (image["src"] or "").startswith("data:image/png;base64,")


def test_page_asks_nothing_of_a_network() -> None:
    page = Page(render_page())
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#"))
    assert "@import" not in render_page()


def test_failed_erasures_come_first() -> None:
    buttons = Page(render_page()).all("button")
    status = [button["data-status"] for button in buttons if "data-status" in button]
    assert status[:3] == ["still star", "still star", "gone"]


def test_damage_is_named_and_whether_it_was_there_before() -> None:
    asked, wrong, first = {"object": "ring", "color": "cyan"}, {"object": "moon", "color": "blue"}, PAIRS[0]
    pairs = [Pair("a ring", 0, asked, first.before, first.after, before, wrong) for before in (asked, wrong)]
    buttons = Page(render_page(pairs=pairs)).all("button")
    status = [button["data-status"] for button in buttons if "data-status" in button]
    assert status == ["wrong object and color", "wrong object and color, before too"]


def test_kept_pairs_come_worst_first() -> None:
    circles = [pair for pair in PAIRS if pair.asked["object"] == "circle"]
    chosen = choose(circles, 6, lambda pair: rank_kept(pair, "object"))
    missed = [misses(pair.asked, pair.seen_after) for pair in chosen]
    assert missed == [["object"], ["style"], ["style"], ["style"], [], []]


def test_damage_by_the_erasure_ranks_before_faults_of_the_base() -> None:
    asked, wrong, shown = {"object": "ring"}, {"object": "moon"}, (PAIRS[0].before, PAIRS[0].after)
    old, new = (Pair("a ring", 0, asked, *shown, before, wrong) for before in (wrong, asked))
    assert choose([old, new], 1, lambda pair: rank_kept(pair, "object")) == [new]


def test_chosen_pairs_are_spread_over_attributes() -> None:
    hearts = [pair for pair in PAIRS if pair.asked["object"] == "heart"]
    colors = {pair.asked["color"] for pair in choose(hearts, 6, lambda _: (0,))}
    assert colors == set(embedded.VOCABULARY.domains["color"])


def test_page_without_log_says_so() -> None:
    page = render(make_results(), PAIRS, [])
    assert "There is no step log" in page
    assert "<svg" not in page


def test_page_without_pictures_or_training_still_holds_the_figures() -> None:
    results = make_results()
    for key in ("training", "environment", "erase_command"):
        del results[key]
    results["prompts"]["seeds"] = "10000..10239"
    page = render(results, [], [])
    assert "No pictures were kept" in page and "10000..10239" in page


def test_page_tells_how_to_make_it_again() -> None:
    page, results = render_page(), make_results()
    for told in (
        results["command"],
        results["erase_command"],
        "hash-of-shapes",
        "hash-of-prompts",
        "2.11.0",
        "98.7654",
    ):
        assert told in page
    assert "10000 10001" in page


def test_ids_are_unique_and_labels_point_to_them() -> None:
    page = Page(render_page())
    ids = [name for _, attributes in page.elements if (name := attributes.get("id"))]
    labels = [name for _, a in page.elements for name in (a.get("aria-labelledby") or "").split()]
    assert len(ids) == len(set(ids))
    assert set(labels) <= set(ids)
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in ids}


def test_written_page_of_240_pairs_is_under_5_megabytes(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", make_results(), PAIRS, make_log(2000))
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(("side", "kind"), [(32, "png"), (512, "jpeg")])
def test_large_pictures_are_shrunk(side: int, kind: str, tmp_path: Path) -> None:
    Image.effect_noise((side, side), 60).save(tmp_path / "noise.png")
    uri = data_uri(tmp_path / "noise.png")
    assert uri.startswith(f"data:image/{kind};base64,")
    assert len(uri) < 80_000


def test_flatten_names_nested_values() -> None:
    assert flatten({"a_b": {"c": 1.0, "d": None}, "e": ["x", 2]}) == [
        ("a b, c", "1"),
        ("a b, d", "not recorded"),
        ("e", "x, 2"),
    ]
