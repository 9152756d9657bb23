"""The benchmark of the update rules: it measures, stores, goes on, and says what it cannot do."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from erase.parameters import LoRA
from erase.protocols import UpdateRule
from erase.updates import UPDATES, WeightedSum
from pipelines.benchmark_table import Ratios, bound, render
from pipelines.benchmark_updates import RULES, SETTINGS, Bench, Contender, in_turn, main
from tests.launch import ROOT

SMALL = ("--setting", "shapes", "--batch-size", "1", "--rounds", "2")
PLAIN = {"seconds": [1.0, 2.0, 4.0, 1.0], "evaluations": [2, 2, 2, 2], "peak_bytes": 1000}
RULE = {"seconds": [1.5, 3.0, 4.0, 1.1], "evaluations": [2, 3, 2, 2], "peak_bytes": 1250}


def case(**rules: dict[str, Any]) -> dict[str, Any]:
    machine = {"gpu": "A GPU", "libraries": {"torch": "2.11"}, "git_commit": "0123456789abcdef+changes"}
    counts = {"trainable": 500_000, "all_parameters": 2_000_000, "batch": [4, 4], "precision": "bfloat16"}
    return {"parameters": "lora", "checkpointing": "on", "machine": machine, "rules": rules, **counts}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases, measured by two commands."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("benchmark") / "results"
    main([*SMALL, "--parameters", "lora", "--rules", "lur chained", "--results", str(folder)])
    main([*SMALL, "--parameters", "cross_attention", "--rules", "pcgrad", "--results", str(folder)])
    return folder


def test_every_round_has_one_step_of_each_rule_in_an_order_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[UpdateRule] = []
    timed = Bench.timed_step

    def noted(bench: Bench, contender: Contender) -> None:
        steps.append(contender.rule)
        timed(bench, contender)

    monkeypatch.setattr(Bench, "timed_step", noted)
    given = ("--parameters", "lora", "--rules", "pcgrad", "nash", "--results", str(tmp_path))
    main([*SMALL[:-1], "3", *given])
    rounds = [steps[place : place + 3] for place in range(0, 9, 3)]
    assert len(steps) == 9 and all(len({type(rule) for rule in each}) == 3 for each in rounds)
    assert len({tuple(map(type, each)) for each in rounds}) > 1


def test_a_second_command_adds_its_case_to_the_first(results: Path) -> None:
    cases = json.loads((results / "shapes-cpu.json").read_text(encoding="utf-8"))["cases"]
    assert [c["parameters"] for c in cases] == ["cross_attention", "lora"]
    assert [list(c["rules"]) for c in cases] == [["weighted_sum", "pcgrad"], ["weighted_sum", "lur chained"]]


def test_evaluations_and_memory_are_the_rules_own(results: Path) -> None:
    cross, lora = json.loads((results / "shapes-cpu.json").read_text(encoding="utf-8"))["cases"]
    assert lora["rules"]["weighted_sum"]["evaluations"] == [2, 2]
    assert lora["rules"]["lur chained"]["evaluations"] == [3, 3]
    for found, name in ((cross, "pcgrad"), (lora, "lur chained")):
        more = found["rules"][name]["peak_bytes"] - found["rules"]["weighted_sum"]["peak_bytes"]
        assert 0 <= more <= 2 * 4 * found["trainable"], "a buffer, and a sketch, which of LoRA's small tensors is whole"
        assert found["rules"]["weighted_sum"]["peak_bytes"] > 4 * found["all_parameters"]


def test_table_and_picture_lie_beside_the_figures(results: Path) -> None:
    assert sorted(file.suffix for file in results.iterdir()) == [".json", ".md", ".svg"]
    table = (results / "shapes-cpu.md").read_text(encoding="utf-8")
    assert "| lur chained | 3.00 |" in table
    words = {node.text for node in ElementTree.parse(results / "shapes-cpu.svg").iter() if node.text}
    assert {"pcgrad", "lur chained", "lora, checkpointing off"} <= words


def test_the_machine_is_described_without_its_name_or_folders(results: Path) -> None:
    text = (results / "shapes-cpu.json").read_text(encoding="utf-8")
    machine = json.loads(text)["cases"][0]["machine"]
    assert (machine["gpu"], machine["threads"]) == (None, 1)
    assert {"cpu", "cores", "libraries", "git_commit"} <= set(machine)
    assert str(results.parent) not in text
    assert str(ROOT) not in text


def test_every_rule_of_the_table_has_a_price_but_the_borrowed_ones_and_those_of_one_objective() -> None:
    unpriced = {UPDATES[name] for name in ("torchjd", "retain_only", "forget_only")}
    assert {type(rule) for rule in RULES.values()} == set(UPDATES.values()) - unpriced


def test_ratios_by_hand() -> None:
    found = Ratios.of(RULE, PLAIN)  # 1.5, 1.5, 1.0, 1.1 round by round; 9.6 s against 8 s in all
    assert (found.lower, found.median, found.upper) == pytest.approx((1.075, 1.3, 1.5))
    assert (found.mean, found.memory, found.evaluations) == pytest.approx((1.2, 1.25, 2.25))


def test_a_target_that_is_missed_is_said() -> None:
    assert (bound(1.1, 1.1), bound(1.1, 1.11), bound(None, 9.0)) == ("≤ 1.10", "≤ 1.10 missed", "")


def test_out_of_memory_is_a_result() -> None:
    table = render({"setting": "sd15", "cases": [case(weighted_sum=PLAIN, **{"lur exact": {"out_of_memory": True}})]})
    assert "| lur exact | out of memory |" in table
    assert "commit 0123456789ab+changes" in table


def test_a_rule_that_runs_out_of_memory_is_left_out_of_later_rounds() -> None:
    bench, tried = Bench(SETTINGS["shapes"], LoRA(), checkpointing=False), []

    def measure(contender: Contender) -> None:
        tried.append(contender)
        raise torch.OutOfMemoryError

    contender = Contender(WeightedSum())
    for _ in range(2):
        bench.attempt(measure, contender)
    assert tried == [contender]
    assert contender.figures() == {"out_of_memory": True}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_a_rule_comes_after_evens_out() -> None:
    """Turning the order round by round would keep it: each rule after one and the same."""
    names, after = list("abcde"), set[tuple[str, str]]()
    for number in range(30):
        order = in_turn(names, number)
        assert sorted(order) == names
        after |= set(itertools.pairwise(order))
    assert len(after) == 5 * 4


def test_the_large_model_is_refused_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--setting", "sd15", "--results", str(tmp_path)])
    assert stop.value.code == 2
    assert "needs a GPU" in capsys.readouterr().err
