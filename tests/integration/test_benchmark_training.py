"""The benchmark of training: what it counts, stores and judges, measured at tiny size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erase.parameters import CrossAttention, LoRA
from erase.updates import LUR
from pipelines.benchmark_training import SETTINGS, latents_per_example, main
from pipelines.training_steps import ESD_STEPS, RULES, Bench, Contender, Setting
from pipelines.training_table import ESD, LATENTS, UNET, category, judged, peak_rate, per_example, render
from tests.launch import ROOT
from tests.tiny import tiny_unet

TINY = Setting("cpu", tiny_unet, tokens=5, batch_size=2, latent_batch=3, config="shapes_star")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases, measured by two commands."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("benchmark") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "shapes", TINY)
        for parameters in ("lora", "cross_attention"):
            main(["--setting", "shapes", "--rounds", "2", "--parameters", parameters, "--results", str(folder)])
    return folder


def cases(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "shapes-cpu.json").read_text(encoding="utf-8"))["cases"]
    return found


def test_a_second_command_adds_its_case_to_the_first(results: Path) -> None:
    assert [case["parameters"] for case in cases(results)] == ["cross_attention", "lora"]
    assert all(list(case["contenders"]) == [*RULES, ESD, LATENTS, UNET] for case in cases(results))


@pytest.mark.parametrize("parameters", [CrossAttention(), LoRA()])
def test_evaluations_by_hand(parameters: CrossAttention | LoRA) -> None:
    torch.manual_seed(0)
    steps = Bench(TINY, parameters, checkpointing=False).contenders()

    def third(name: str) -> int:
        return [steps[name].step(0.0) for _ in range(3)][-1]

    # a batch of 2: base on p and n, student to forget; base and student to keep
    assert third("weighted_sum") == 2 * (2 + 1 + 1 + 1)
    assert third("lur chained") == 2 * (2 + 1 + 1 + 2)
    assert steps[ESD].step(0.0) == 3 + 1
    assert steps[ESD].step(0.5) == 2 * 25 + 3 + 1
    assert steps[ESD].step(0.999) == 2 * (ESD_STEPS - 1) + 3 + 1
    assert (steps[LATENTS].step(0.0), steps[UNET].step(0.0)) == (2 * 3, 2)


def test_esds_evaluations_are_counted_as_they_are_made() -> None:
    bench = Bench(TINY, CrossAttention(), checkpointing=False)
    seen = []
    with bench.base() as base:
        for unet in (base, bench.unet):
            unet.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    assert bench.esd_step(0.1) == sum(seen)


def test_every_step_moves_the_weights_but_sampling_and_the_pass_alone() -> None:
    bench = Bench(TINY, CrossAttention(), checkpointing=False)
    for name, contender in bench.contenders().items():
        before = [p.detach().clone() for p in bench.parameters]
        contender.step(0.1)
        moved = any(not torch.equal(p, old) for p, old in zip(bench.parameters, before, strict=True))
        assert moved == (name not in (LATENTS, UNET)), name
        assert all(bool(p.isfinite().all()) and p.grad is None for p in bench.parameters)


def test_the_large_unets_operations_are_those_of_stable_diffusion_1() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        SETTINGS["sd15"].unet()(torch.randn(1, 4, 64, 64), torch.ones(1), torch.randn(1, 77, 768))
    assert counter.get_total_flops() == pytest.approx(0.803e12, rel=0.001)


def test_latents_of_an_example_by_hand() -> None:
    made, trained = (60 + 30 + 240) * 8 * 2, 200 * 16 * 2
    assert latents_per_example("shapes_star") == made / trained


CASE: dict[str, Any] = {
    "parameters": "full",
    "checkpointing": False,
    "batch": 4,
    "precision": "bfloat16",
    "trainable": 500_000,
    "all_parameters": 2_000_000,
    "latents": {"config": "sd15_artist", "evaluations_per_example": 2.0},
    "pass_flops": 80e12,
    "matrix_rate": 200e12,
    "profile": {"attention": 0.75, "convolution": 0.25},
    "machine": {"gpu": "NVIDIA A100-SXM4-80GB", "libraries": {"torch": "2.15"}, "git_commit": "0123456789abcdef"},
    "contenders": {
        "weighted_sum": {"examples": 8, "seconds": [0.8, 0.8], "evaluations": [20, 20], "peak_bytes": 2**30},
        "weighted_sum again": {"examples": 8, "seconds": [0.8, 0.8], "evaluations": [20, 20], "peak_bytes": 2**30},
        "lur chained": {"examples": 8, "seconds": [1.2, 1.2], "evaluations": [24, 24], "peak_bytes": 2**30},
        "lur alternating": {"examples": 8, "seconds": [0.88, 0.88], "evaluations": [20, 20], "peak_bytes": 2**30},
        "lur exact": {"out_of_memory": True},
        ESD: {"examples": 1, "seconds": [1.0, 5.0], "evaluations": [29, 79], "peak_bytes": 2**29},
        LATENTS: {"examples": 16, "seconds": [0.8, 0.8], "evaluations": [32, 32], "peak_bytes": 2**29},
        UNET: {"examples": 4, "seconds": [0.5, 0.5], "evaluations": [4, 4], "peak_bytes": 2**29},
    },
}


def test_prices_of_an_example_by_hand() -> None:
    assert per_example(ESD, CASE) == (54.0, 54.0, 3.0)
    assert per_example("lur chained", CASE) == pytest.approx((3.0, 5.0, 1.2 / 8 + 2 * 0.8 / 32))


def test_targets_stand_beside_their_values_and_say_what_is_missed() -> None:
    table = render({"setting": "sd15", "cases": [CASE]})
    assert "| evaluations an example, esd's recipe / lur chained | ≥ 10 | 10.8 |" in table
    assert "| seconds an example, esd's recipe / lur chained | ≥ 5 | 15 |" in table
    assert "share of the maker's dense bf16 rate (312 TFLOP/s) | ≥ 0.4 | 0.513 |" in table
    assert "a large matrix product's (200 TFLOP/s) | | 0.8 |" in table
    assert "| seconds, lur alternating / weighted_sum, median of rounds | ≤ 1.05 | 1.1 missed |" in table
    assert "| lur exact | out of memory |" in table
    assert judged("x", 4.9, 5.0) == "| x | ≥ 5 | 4.9 missed |"


def test_an_unknown_devices_rate_is_that_of_a_matrix_product() -> None:
    assert peak_rate(CASE | {"machine": {"gpu": None}}) == ("a large matrix product's rate", 200e12)


def test_operations_have_kinds() -> None:
    named = ("aten::_scaled_dot_product_flash_attention", "aten::convolution_backward", "aten::addmm", "aten::mul")
    assert [category(name) for name in named] == [
        "attention",
        "convolution",
        "matrix products",
        "elementwise and others",
    ]


def test_the_table_lies_beside_the_figures_and_names_the_command_for_a_gpu(results: Path) -> None:
    assert sorted(file.suffix for file in results.iterdir()) == [".json", ".md"]
    table = (results / "shapes-cpu.md").read_text(encoding="utf-8")
    assert "\n    python -m pipelines.benchmark_training --setting sd15\n" in table
    assert "| esd's recipe | 1 |" in table
    text = (results / "shapes-cpu.json").read_text(encoding="utf-8")
    assert str(results.parent) not in text and str(ROOT) not in text


def test_profile_and_memory_are_of_the_case(results: Path) -> None:
    for case in cases(results):
        assert sum(case["profile"].values()) == pytest.approx(1.0)
        found = case["contenders"]
        copies = 1 if case["parameters"] == "lora" else 2
        assert found["weighted_sum"]["peak_bytes"] > 4 * copies * case["all_parameters"]
        assert found["lur chained"]["peak_bytes"] - found["weighted_sum"]["peak_bytes"] <= 3 * 4 * case["trainable"]


def test_a_step_that_runs_out_of_memory_is_left_out_of_later_rounds() -> None:
    bench, tried = Bench(TINY, LoRA(), checkpointing=False), []

    def step(share: float) -> int:
        tried.append(share)
        raise torch.OutOfMemoryError

    contender = Contender(step, examples=1)
    for _ in range(2):
        bench.measure(contender, 0.5)
    assert tried == [0.5]
    assert contender.figures() == {"out_of_memory": True}


def test_every_mode_of_lur_is_measured() -> None:
    modes = {rule.mode for rule in RULES.values() if isinstance(rule, LUR)}
    assert modes == {"chained", "alternating", "first_order", "exact"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_large_model_is_refused_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--setting", "sd15", "--results", str(tmp_path)])
    assert stop.value.code == 2
    assert "needs a GPU" in capsys.readouterr().err
