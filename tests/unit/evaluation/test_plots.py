from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from erase.diffusion.blocks import block_of
from erase.evaluation.panels import PANELS, by_block
from erase.evaluation.plots import PAGE_COLORS, running_mean, series, training_plots, window
from erase.training.step_log import read_log
from tests.tiny import tiny_unet
from tests.unit.training.runs import make_run

NOT_DRAWN = {"step", "evaluations", "learning_rate"}
SVG = "{http://www.w3.org/2000/svg}"


def make_log(count: int = 60, lur: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "retain_loss": 0.02 + 0.01 * (step % 3),
            "forget_loss": 1 / step,
            "cosine": 0.5 * (-1) ** step,
            "alpha": 0.03 if lur else None,
            "correction": 0.1 * step if lur and step % 10 == 1 else None,
        }
        for step in range(1, count + 1)
    ]


def parse(svg: str) -> ElementTree.Element:
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return ElementTree.fromstring(svg.replace("<svg ", f"<svg {spaces} ", 1))


def test_running_mean_of_known_values() -> None:
    assert running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(("count", "span"), [(1, 1), (19, 1), (20, 5), (60, 5), (1000, 50)])
def test_window_is_a_twentieth_but_five_at_least_and_of_few_just_one(count: int, span: int) -> None:
    assert window(count) == span


def test_series_leaves_out_what_was_not_measured() -> None:
    steps, values = series(make_log(), "correction")
    assert steps.tolist() == [1, 11, 21, 31, 41, 51]
    assert values.tolist() == pytest.approx([0.1, 1.1, 2.1, 3.1, 4.1, 5.1])


def test_empty_log_gives_no_plots() -> None:
    assert training_plots([]) == []


def test_update_without_look_ahead_has_no_plot_of_it() -> None:
    assert [plot.title for plot in training_plots(make_log(lur=False))] == ["Losses", "Cosine of the two gradients"]


def full_log(count: int) -> list[dict[str, Any]]:
    """Every curve of every panel has a value at every step; values go up and down."""
    curves = [curve.key for panel in PANELS for curve in panel.curves]
    return [
        {"step": step} | {key: 0.5 + 0.4 * np.sin(step / 9 + number) for number, key in enumerate(curves)}
        for step in range(1, count + 1)
    ]


def test_every_number_of_a_run_s_log_is_drawn(tmp_path: Path) -> None:
    make_run(tmp_path, probe_every=2).train()
    keys = {key for line in read_log(tmp_path) for key in line}
    missing = keys - {curve.key for panel in PANELS for curve in panel.curves}
    assert {key for key in missing if not key.startswith("cosine_after/")} == NOT_DRAWN
    assert len(training_plots(read_log(tmp_path))) == len(PANELS)


def test_every_block_of_a_unet_has_a_curve_of_its_own() -> None:
    curves = by_block("cosine")
    assert {curve.key for curve in curves} == {f"cosine/{block_of(name)}" for name, _ in tiny_unet().named_parameters()}
    assert len({(curve.color, curve.dashes) for curve in curves}) == len({curve.label for curve in curves}) == 7


def test_what_was_measured_once_is_drawn_as_a_mark() -> None:
    log = [{"step": step, "cosine": 0.5, "cosine_before": 0.25 if step == 50 else None} for step in range(1, 60)]
    (drawn,) = [plot for plot in training_plots(log) if "0.25 at step 50" in plot.svg]
    assert "<use" in drawn.svg, "a marker"


def test_no_number_is_drawn_twice_and_no_title_is() -> None:
    keys, titles = [curve.key for panel in PANELS for curve in panel.curves], [panel.title for panel in PANELS]
    assert (len(set(keys)), len(set(titles))) == (len(keys), len(titles))


def test_the_share_of_conflicts_is_drawn_as_counted() -> None:
    log = [{"step": step, "conflict_share": 1 / step, "cosine": 1 / step} for step in range(1, 41)]
    cosine, share = training_plots(log)
    assert "conflicting: 1 at step 1, 0.025 at step 40" in share.svg
    assert "cosine: running mean 1 at step 1, 0.0264 at step 40" in cosine.svg  # of 1/36 to 1/40


def test_what_does_not_compare_between_rules_says_so() -> None:
    notes = {panel.title: panel.note for panel in PANELS}
    assert "look-ahead" in notes["Cosine of the two gradients"]
    assert "here rules compare" in notes["Cosine before and after an update"]


def test_a_log_of_one_step_gives_no_plots() -> None:
    assert training_plots(make_log(1)) == []


def test_values_that_are_not_finite_are_left_out() -> None:
    log = [*make_log(), {"step": 61, "retain_loss": float("nan"), "forget_loss": float("inf"), "cosine": 0.0}]
    assert len(training_plots(log)) == 4


def test_plots_are_named_described_and_have_words_as_text() -> None:
    for plot in training_plots(make_log()):
        root = parse(plot.svg)
        names = {element.get("id") for element in root.iter()}
        title, description = root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")
        assert title == plot.title
        assert description is not None and "running mean" in description
        assert set(root.attrib["aria-labelledby"].split()) <= names
        assert "step" in ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]


def test_ids_are_unique_over_all_plots_and_references_point_to_them() -> None:
    roots = [parse(plot.svg) for plot in training_plots(make_log())]
    ids = [name for root in roots for element in root.iter() if (name := element.get("id"))]
    references = [
        value[1:] for root in roots for element in root.iter() for key, value in element.items() if key.endswith("href")
    ]
    assert len(ids) == len(set(ids))
    assert references and set(references) <= set(ids)


def test_plots_use_the_colors_of_the_page_only() -> None:
    for plot in training_plots(make_log()):
        assert not any(stand_in in plot.svg for stand_in in PAGE_COLORS)
        assert "var(--" in plot.svg and "currentColor" in plot.svg
        assert "<style" not in plot.svg and "<metadata" not in plot.svg


def test_the_same_log_gives_the_same_plots() -> None:
    assert training_plots(make_log()) == training_plots(make_log())


def test_a_long_log_stays_small() -> None:
    assert sum(len(plot.svg) for plot in training_plots(make_log(20_000))) < 1_000_000
    assert sum(len(plot.svg) for plot in training_plots(full_log(2_000))) < 1_200_000
