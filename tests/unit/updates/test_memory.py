"""No update rule holds more than it says: every byte that torch's allocator hands out during one update is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from erase import inner_products
from erase.gradients import Parameters, clear, gradients
from erase.protocols import Diagnostics, Objective, UpdateRule, UpdateState
from erase.training.memory import SKETCHES
from erase.updates import LUR, UPDATES
from erase.updates.alpha import AbsoluteAlpha
from erase.updates.lur import MODES
from erase.updates.two_objectives import gather_on_top, report
from pipelines.measure import peak_on_cpu
from tests.unit.updates.every_rule import RULES

LAYERS, WIDTH, SMALL = 32, 256, 64
SLACK = 0.5
"""Of all parameters, beside the gradient and the buffers. At one time there are at most

- three sketches, and two of them in float64 for their cosine: (3 + 4) / 17;
- or three sketches, and two layers' gradients in float64 for the Gram matrix, with the two before them: 3/17 + 8/32;
- or three sketches with their pieces, one layer's gradient that autograd has yet to add to ``.grad``: 4/17 + 1/32;
- and 32 rows of 256 activations, a few times, of 32 x 256 x 256 parameters: a few 1/256.

The most is 3/17 + 8/32 + 4/256 = 0.44; a hidden buffer would be 1.
"""
HELD = {name: case for name, case in RULES.items() if not name.startswith("exact")}
"""`exact` holds a graph besides, whose size is the loss's affair."""


@dataclass(frozen=True)
class Hoarder:
    """The plain sum, but it keeps a copy of the retain gradient and does not say so."""

    name: str = "hoarder"
    buffers: int = 0

    def __call__(self, retain: Objective, forget: Objective, parameters: Parameters, state: UpdateState) -> Diagnostics:
        clear(parameters)
        kept = gather_on_top(retain, parameters)
        aside = [g.clone() for g in gradients(parameters)]
        seen = report(kept, gather_on_top(forget, parameters, kept.sketch), state, evaluations=2)
        aside.clear()
        return seen


def layered(width: int) -> tuple[list[nn.Parameter], Objective, Objective]:
    """A deep network, one row a batch: its parameters dwarf everything else."""
    source = torch.Generator().manual_seed(5)
    parameters = [nn.Parameter(torch.randn(width, width, generator=source) / width**0.5) for _ in range(LAYERS)]

    def objective(row: Tensor) -> Objective:
        def evaluate() -> Iterator[Tensor]:
            hidden = row
            for weight in parameters:
                hidden = torch.tanh(hidden @ weight)
            yield (hidden - 1).pow(2).mean()

        return evaluate

    retain, forget = (objective(torch.randn(1, width, generator=source)) for _ in range(2))
    return parameters, retain, forget


def held(rule: UpdateRule, step: int, width: int = WIDTH) -> float:
    """The most memory that one update takes, in units of the parameters' own; what it leaves in ``.grad`` counts."""
    parameters, retain, forget = layered(width)
    peak = peak_on_cpu(lambda: rule(retain, forget, parameters, UpdateState(step=step)))
    return peak / sum(p.numel() * p.element_size() for p in parameters)


def assert_holds_what_it_says(rule: UpdateRule, step: int) -> None:
    assert held(rule, step) <= 1 + rule.buffers + SLACK


@pytest.mark.parametrize("name", HELD)
def test_a_rule_holds_its_gradient_and_its_buffers_and_no_more(name: str) -> None:
    assert_holds_what_it_says(*HELD[name])


@pytest.mark.parametrize("name", HELD)
def test_of_small_tensors_a_rule_holds_sketches_as_long_as_the_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers of 4,096 entries are sketched whole. Beside sketches, two layers in float64 and a row's activations."""
    monkeypatch.setattr(inner_products, "CHUNK", {"cpu": SMALL**2})
    rule, step = HELD[name]
    assert held(rule, step, SMALL) <= 1 + rule.buffers + SKETCHES + SLACK


def test_exact_holds_the_buffers_that_it_says_beside_a_graph_as_small_as_this_ones() -> None:
    rule = LUR(mode="exact", alpha=AbsoluteAlpha(value=0.01))
    assert rule.buffers <= held(rule, 1) <= 1 + rule.buffers + SLACK


@pytest.mark.parametrize("name", [*(name for name in UPDATES if name != "lur"), *MODES])
def test_a_rule_says_what_it_holds(name: str) -> None:
    """LUR mode by mode."""
    text = {**UPDATES, **MODES}[name].__doc__ or ""
    assert "Memory: " in text, name


def test_a_rule_that_hoards_is_found_out() -> None:
    with pytest.raises(AssertionError):
        assert_holds_what_it_says(Hoarder(), 0)


@pytest.mark.parametrize("name", HELD)
def test_a_rule_says_no_more_than_it_holds(name: str) -> None:
    rule, step = HELD[name]
    assert held(rule, step) >= 1 + rule.buffers


def test_what_was_there_before_does_not_count_and_all_that_is_held_at_once_does() -> None:
    before = [torch.zeros(1000)]

    def call() -> None:
        before.clear()
        held = [torch.zeros(2000)]  # 8000 bytes
        held.append(held[0].double())  # 16000 more
        held[0] = torch.zeros(1000)  # 4000, and then 8000 less

    assert peak_on_cpu(call) == 28000
