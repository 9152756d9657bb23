"""How two gradients lie to each other by block, against dense vectors; and a probe that leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from erase.gradients import SKETCH_STRIDE, SKETCH_WHOLE, gradients, sketch, sketch_spans
from erase.protocols import Diagnostics, UpdateState
from erase.training.alignment import Blocks, probe
from erase.updates import AlternatingSteps, WeightedSum
from tests.properties import assert_parameters_restored
from tests.unit.updates.problems import Network, bowls, flat, summed

SHAPES = [(3, 4), (5,), (), (2, 2)]
LABELS = ["up", "down", "up", "other"]
"""`up` lies in two places."""
BIG = [SKETCH_WHOLE, SKETCH_WHOLE + 1, 10, 3 * SKETCH_WHOLE]


def parameters_of(*shapes: tuple[int, ...] | int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


def random_gradients(parameters: list[nn.Parameter]) -> tuple[Tensor, list[Tensor]]:
    """Puts random gradients in place, and returns their sketch and themselves."""
    for p in parameters:
        p.grad = torch.randn_like(p)
    return sketch(parameters), [g.clone() for g in gradients(parameters)]


def seen(retain: Tensor | None, forget: Tensor | None) -> Diagnostics:
    return Diagnostics(0.0, 0.0, 1.0, 1.0, 0.0, 2, sketches=(retain, forget))


def dense(tensors: list[Tensor], label: str) -> Tensor:
    """The entries of one block."""
    return torch.cat([t.reshape(-1).double() for t, found in zip(tensors, LABELS, strict=True) if found == label])


def test_the_spans_follow_each_other_and_cover_the_sketch() -> None:
    for shapes in (SHAPES, BIG):
        parameters = parameters_of(*shapes)
        whole, _ = random_gradients(parameters)
        spans = sketch_spans(parameters)
        assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
        assert (len(spans), spans[-1].stop) == (len(parameters), whole.numel())


def test_each_span_holds_the_sketch_of_its_own_parameter() -> None:
    parameters = parameters_of(*BIG)
    whole, _ = random_gradients(parameters)
    for p, span in zip(parameters, sketch_spans(parameters), strict=True):
        assert torch.equal(whole[span], sketch([p]))
    lengths = [span.stop - span.start for span in sketch_spans(parameters)]
    assert lengths == [SKETCH_WHOLE, -(-(SKETCH_WHOLE + 1) // SKETCH_STRIDE), 10, -(-3 * SKETCH_WHOLE // SKETCH_STRIDE)]


def test_cosines_by_block_are_those_of_dense_vectors() -> None:
    parameters = parameters_of(*SHAPES)
    (retain, retain_dense), (forget, forget_dense) = (random_gradients(parameters) for _ in range(2))
    found = Blocks(parameters, LABELS).cosines(seen(retain, forget))
    expected = {
        f"cosine/{label}": torch.cosine_similarity(dense(retain_dense, label), dense(forget_dense, label), dim=0).item()
        for label in ("up", "down", "other")
    }
    assert found == pytest.approx(expected)
    assert list(found) == ["cosine/up", "cosine/down", "cosine/other"]


def test_blocks_may_lie_otherwise_than_the_whole() -> None:
    parameters = parameters_of(1, 1)
    retain, forget = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 3.0])
    assert Blocks(parameters, ["a", "b"]).cosines(seen(retain, forget)) == {"cosine/a": -1.0, "cosine/b": 1.0}


def test_a_block_whose_gradient_vanishes_has_the_cosine_0() -> None:
    found = Blocks(parameters_of(1, 1), ["a", "b"]).cosines(seen(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 2.0])))
    assert found == {"cosine/a": 0.0, "cosine/b": 1.0}


def test_a_step_that_looked_at_one_gradient_has_no_cosines() -> None:
    problem, state = bowls(), UpdateState()
    blocks = Blocks(problem.parameters, ["x", "y"])
    for _ in range(2):
        step = AlternatingSteps()(problem.retain, problem.forget, problem.parameters, state)
        assert blocks.cosines(step) == {}
    assert set(blocks.cosines(problem.run(WeightedSum()))) == {"cosine/x", "cosine/y"}


def test_inner_products_by_hand() -> None:
    # g_r = (2, 2), g_f = (-3, 4): -6 and 8, and with the forget weight 4 taken out a quarter of that
    problem = bowls()
    blocks = Blocks(problem.parameters, ["x", "y"])
    sketches = probe(problem.retain, problem.forget, problem.parameters)
    assert blocks.inner_products(*sketches, "inner", 1.0) == {"inner": 2.0, "inner/x": -6.0, "inner/y": 8.0}
    assert blocks.inner_products(*sketches, "inner", 4.0) == {"inner": 0.5, "inner/x": -1.5, "inner/y": 2.0}


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_inner_products_by_block_sum_to_the_whole(weight: float) -> None:
    parameters = parameters_of(*SHAPES)
    (retain, retain_dense), (forget, forget_dense) = (random_gradients(parameters) for _ in range(2))
    found = Blocks(parameters, LABELS).inner_products(retain, forget, "name", weight)
    whole = sum((r.double() * f.double()).sum().item() for r, f in zip(retain_dense, forget_dense, strict=True))
    assert found["name"] == pytest.approx(whole / weight)
    assert sum(found[f"name/{label}"] for label in ("up", "down", "other")) == pytest.approx(found["name"])
    assert len(found) == 4


def test_every_parameter_needs_a_label() -> None:
    with pytest.raises(ValueError, match="argument"):
        Blocks(parameters_of(1, 1), ["a"])


def test_a_probe_sees_both_gradients_and_leaves_parameters_without_any() -> None:
    network = Network()
    problem = network.problem(micro_batches=3)
    problem.gradient(WeightedSum())  # what lies there already does not enter
    theta = flat(network.parameters()).detach()
    with assert_parameters_restored(problem.parameters):
        retain, forget = probe(problem.retain, problem.forget, problem.parameters)
    assert [p.grad for p in problem.parameters] == [None, None]
    torch.testing.assert_close(retain, torch.func.grad(network.retain)(theta), rtol=0, atol=1e-14)
    torch.testing.assert_close(forget, torch.func.grad(network.forget)(theta), rtol=0, atol=1e-14)


def test_a_probe_evaluates_each_objective_once() -> None:
    calls: list[str] = []
    parameters = parameters_of(2)
    retain, forget = summed(parameters, lambda t: t.sum()), summed(parameters, lambda t: (2 * t).sum())
    probe(lambda: calls.append("retain") or retain(), lambda: calls.append("forget") or forget(), parameters)
    assert calls == ["retain", "forget"]
