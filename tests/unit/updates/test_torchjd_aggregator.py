"""TorchJD's aggregators as update rules: found by name, refused with a remedy, and equal to TorchJD called directly."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchjd.aggregation as library
from pydantic import ValidationError
from torch import Tensor

from erase.config import build, dump, merge
from erase.errors import UserError
from erase.protocols import UpdateState
from erase.randomness import derive
from erase.training.settings import TrainingSettings
from erase.updates import TorchJD
from erase.updates.torchjd_aggregator import aggregators, fit
from tests.properties import assert_deterministic, assert_finite
from tests.unit.updates.problems import Network, bowls, flat

OPTIONS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.5},
    "Constant": {"weights": [0.5, 2.0]},
    "FairGrad": {"alpha": 1.0},
    "NashMTL": {"n_tasks": 2},
    "TrimmedMean": {"trim_number": 0},
}
"""What an aggregator must be told, of two objectives."""
OF_MORE_THAN_TWO = "Krum"
"""It needs three gradients at least."""
NAMES = sorted(set(aggregators()) - {OF_MORE_THAN_TWO})
RETAIN, FORGET = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0]), torch.tensor([-2.0, 1.0, -0.5, 0.25, -1.0])
quiet = pytest.mark.filterwarnings("ignore")
"""NashMTL's solver warns of its own set-up; what TorchJD warns of is not what is tested."""


def torchjd(name: str) -> TorchJD:
    return TorchJD(aggregator=name, options=OPTIONS.get(name, {}))


def combine(rule: TorchJD, state: UpdateState, retain: Tensor = RETAIN, forget: Tensor = FORGET) -> Tensor:
    """Of gradients that lie in two tensors each."""
    sides = [[g[:2].clone().view(2, 1), g[2:].clone()] for g in (retain, forget)]
    rule.combine(sides[0], sides[1], state)
    return torch.cat([part.reshape(-1) for part in sides[1]])


def settings(*overrides: str) -> TrainingSettings:
    return build(TrainingSettings, merge({"output_dir": "run", "update": {"name": "torchjd"}}, overrides))


def problem_of(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        settings(*overrides)
    (problem,) = caught.value.problems
    return problem


def test_every_concrete_aggregator_is_known_and_no_base_class() -> None:
    known = set(aggregators())
    assert {"UPGrad", "MGDA", "ConFIG", "NashMTL", "Krum", "Mean"} <= known
    assert known.isdisjoint({"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "UPGradWeighting"})
    assert all(issubclass(kind, library.Aggregator) for kind in aggregators().values())


def test_an_aggregator_is_chosen_by_name_with_its_options() -> None:
    update = settings("update.aggregator=CAGrad", "update.options.c=0.25").update
    assert update == TorchJD(aggregator="CAGrad", options={"c": 0.25})
    assert isinstance(update, TorchJD) and update.module.c == 0.25
    assert dump(update) == {"name": "torchjd", "aggregator": "CAGrad", "options": {"c": 0.25}}
    listed = settings("update.aggregator=UPGrad", "update.options.pref_vector=[1.0, 3.0]").update
    assert isinstance(listed, TorchJD) and torch.equal(listed.module.pref_vector, torch.tensor([1.0, 3.0]))


@pytest.mark.parametrize("name", ["NoSuch", "upgrad", "Aggregator"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    problem = problem_of(f"update.aggregator={name}")
    assert f"TorchJD has no aggregator '{name}'; known: {', '.join(sorted(aggregators()))}" in problem
    assert problem.startswith("update: ")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["update.aggregator=CAGrad"], ["CAGrad", "'c'"]),
        (["update.aggregator=NashMTL"], ["NashMTL", "'n_tasks'"]),
        (["update.options.nope=1"], ["UPGrad", "'nope'"]),
        (["update.aggregator=CAGrad", "update.options.c=-1"], ["CAGrad", "non-negative"]),
    ],
)
def test_options_that_are_missing_unknown_or_wrong_are_named(overrides: list[str], words: list[str]) -> None:
    problem = problem_of(*overrides)
    assert "cannot be made with options" in problem
    assert [word for word in words if word not in problem] == []


@quiet
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Krum", {"n_byzantine": 0}),
        ("TrimmedMean", {"trim_number": 1}),
        ("NashMTL", {"n_tasks": 3}),
        ("Constant", {"weights": [1.0, 2.0, 3.0]}),
        ("UPGrad", {"pref_vector": [None, 1.0]}),
        ("UPGrad", {"projector": "x"}),
    ],
)
def test_an_aggregator_that_cannot_take_two_gradients_is_refused_when_it_is_made(
    name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match=name):
        TorchJD(aggregator=name, options=options)


def test_without_torchjd_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    assert "TorchJD is not installed; pip install 'erase[torchjd]'" in problem_of("update.aggregator=UPGrad")


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_each_aggregator_equals_torchjd_called_directly(name: str) -> None:
    """With the same seed, on the stacked Jacobian; float32's rounding, and least squares for FairGrad."""
    rule, state = torchjd(name), UpdateState(seed=3)
    found = combine(rule, state)
    options = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in OPTIONS.get(name, {}).items()}
    torch.manual_seed(derive(3, "aggregator", 0))
    expected = aggregators()[name](**options)(torch.stack([RETAIN, FORGET]))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert found.abs().max() > 0


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_each_aggregator_survives_the_first_step_of_a_teacher(name: str) -> None:
    """The retain gradient is exactly zero there."""
    assert_finite([combine(torchjd(name), UpdateState(), retain=torch.zeros(5))])


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_two_gradients_that_vanish_give_zero_and_what_is_not_finite_is_not_hidden(name: str) -> None:
    """Whatever a solver inside makes of it: the loop says which loss it was."""
    assert combine(torchjd(name), UpdateState(), torch.zeros(5), torch.zeros(5)).tolist() == [0.0] * 5
    for value in (float("nan"), float("inf")):
        spoilt = torch.tensor([value, 1.0, 1.0, 1.0, 1.0])
        assert not combine(torchjd(name), UpdateState(), RETAIN, spoilt).isfinite().all()


LISTS: list[tuple[str, dict[str, Any]]] = [
    ("AlignedMTL", {"pref_vector": [1.0, 2.0]}),
    ("UPGrad", {"pref_vector": [1, 2]}),
    ("DualProj", {"pref_vector": [1.0, 2.0]}),
    ("ConFIG", {"pref_vector": [1.0, 2.0]}),
    ("Constant", {"weights": [1, 2]}),
    ("GradDrop", {"leak": [0.1, 0.2]}),
]
WHOLE = [
    case for case in LISTS if not hasattr(TorchJD(aggregator=case[0], options=case[1]).module, "gramian_weighting")
]
"""Those that look at the gradients themselves."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options"), LISTS)
def test_options_that_are_lists_fit_the_gradients_type(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    found = combine(TorchJD(aggregator=name, options=options), UpdateState(), RETAIN.to(dtype), FORGET.to(dtype))
    assert found.dtype == dtype
    assert_finite([found])


def test_options_that_are_lists_go_where_the_gradients_are() -> None:
    """The meta device is another than the CPU, where they were made; TorchJD's modules keep them as attributes."""
    assert [name for name, _ in WHOLE] == ["ConFIG", "Constant", "GradDrop"]
    for name, options in WHOLE:
        rule = TorchJD(aggregator=name, options=options)
        fit(rule.module, torch.ones(2, 5, device="meta"))
        held = [x for part in rule.module.modules() for x in vars(part).values() if isinstance(x, Tensor)]
        assert {x.device.type for x in held} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "options"), LISTS)
def test_on_a_gpu_an_aggregator_with_lists_makes_what_it_makes_on_the_cpu(name: str, options: dict[str, Any]) -> None:
    """But for GradDrop, whose random numbers are the device's."""
    near, far = (
        combine(TorchJD(aggregator=name, options=options), UpdateState(), RETAIN.to(device), FORGET.to(device))
        for device in ("cpu", "cuda")
    )
    assert far.is_cuda
    assert_finite([far])
    if name != "GradDrop":
        torch.testing.assert_close(far.cpu(), near, rtol=1e-5, atol=1e-6)


def test_one_that_needs_the_gram_matrix_alone_takes_the_memory_of_a_gram_rule() -> None:
    buffers = {name: torchjd(name).buffers for name in ("UPGrad", "MGDA", "PCGrad", "ConFIG", "GradDrop")}
    assert buffers == {"UPGrad": 1, "MGDA": 1, "PCGrad": 1, "ConFIG": 11, "GradDrop": 11}


@pytest.mark.parametrize("name", ["UPGrad", "ConFIG"])
def test_a_whole_step_is_torchjd_s_of_autograd_s_gradients(name: str) -> None:
    network = Network(torch.float64)
    theta = flat(network.parameters()).detach()
    jacobian = torch.stack([torch.func.grad(network.retain)(theta), torch.func.grad(network.forget)(theta)])
    expected = aggregators()[name]()(jacobian)
    found = network.problem(micro_batches=2).gradient(TorchJD(aggregator=name))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    seen = bowls().run(TorchJD(aggregator=name))
    assert (seen.retain_norm, seen.forget_norm, seen.evaluations) == pytest.approx((8**0.5, 5.0, 2))


# Chance and memory


@pytest.mark.parametrize("name", ["Random", "GradDrop"])
def test_what_is_drawn_follows_from_seed_and_step_alone(name: str) -> None:
    retain, forget = torch.randn(200), torch.randn(200)

    def drawn(seed: int, step: int) -> Tensor:
        torch.rand(3)  # the global generator stands somewhere else each time
        return combine(torchjd(name), UpdateState(seed=seed, step=step), retain, forget)

    assert_deterministic(lambda _r, _f: drawn(5, 2), retain, forget)
    assert not torch.equal(drawn(5, 2), drawn(5, 3))
    assert not torch.equal(drawn(5, 2), drawn(6, 2))


@pytest.mark.parametrize("name", ["Random", "GradDrop", "PCGrad"])
def test_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    combine(torchjd(name), UpdateState(seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["ExcessMTL", "GradVac", "PCD"])
def test_one_that_remembers_begins_afresh_at_step_0(name: str) -> None:
    rule, state = torchjd(name), UpdateState(seed=1)
    first = combine(rule, state)
    later = [combine(rule, replace(state, step=step), 2 * RETAIN, 0.3 * FORGET) for step in (1, 2)]
    assert torch.equal(combine(rule, state), first)
    again = [combine(rule, replace(state, step=step), 2 * RETAIN, 0.3 * FORGET) for step in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(later, again, strict=True))


def test_one_that_remembers_is_changed_by_what_it_saw() -> None:
    rule = torchjd("ExcessMTL")
    combine(rule, UpdateState(seed=1))
    combine(rule, UpdateState(seed=1, step=1), 5 * RETAIN, 0.1 * FORGET)
    changed = combine(rule, UpdateState(seed=1, step=2))
    assert not torch.equal(changed, combine(torchjd("ExcessMTL"), UpdateState(seed=1, step=0)))
