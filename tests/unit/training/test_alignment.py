"""How two gradients lie to each other by block, against dense vectors; and a probe that leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from erase.gradients import SKETCH_STRIDE, SKETCH_WHOLE, gradients, sketch, sketch_spans
from erase.protocols import Diagnostics, UpdateState
from erase.training.alignment import Blocks, probe
from erase.updates import LUR, AlternatingSteps, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
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


def test_norms_and_cosines_by_block_are_those_of_dense_vectors() -> None:
    parameters = parameters_of(*SHAPES)
    (retain, retain_dense), (forget, forget_dense) = (random_gradients(parameters) for _ in range(2))
    expected: dict[str, float] = {}
    for label in ("up", "down", "other"):
        r, f = dense(retain_dense, label), dense(forget_dense, label)
        expected[f"retain_norm/{label}"] = r.norm().item()
        expected[f"forget_norm/{label}"] = f.norm().item() / 3
        expected[f"cosine/{label}"] = torch.cosine_similarity(r, f, dim=0).item()
    assert Blocks(parameters, LABELS).numbers(seen(retain, forget), 3.0) == pytest.approx(expected)


def test_a_block_of_neighbours_is_one_span() -> None:
    blocks = Blocks(parameters_of(2, 3, 4, 5, 6), ["a", "a", "b", "a", "a"])
    assert blocks.spans == {"a": [slice(0, 5), slice(9, 20)], "b": [slice(5, 9)]}


def cosines(retain: list[float], forget: list[float]) -> dict[str, float]:
    """Of two blocks `a` and `b` of one entry each."""
    found = Blocks(parameters_of(1, 1), ["a", "b"]).numbers(seen(torch.tensor(retain), torch.tensor(forget)), 1.0)
    return {key: value for key, value in found.items() if key.startswith("cosine/")}


def test_blocks_may_lie_otherwise_than_the_whole() -> None:
    assert cosines([1.0, 3.0], [-1.0, 3.0]) == {"cosine/a": -1.0, "cosine/b": 1.0}


def test_a_block_whose_gradient_vanishes_has_the_cosine_0() -> None:
    assert cosines([0.0, 1.0], [2.0, 2.0]) == {"cosine/a": 0.0, "cosine/b": 1.0}


def test_a_step_tells_of_blocks_what_it_looked_at_and_no_more() -> None:
    problem, state = bowls(), UpdateState()  # g_r = (2, 2), g_f = (-3, 4)
    blocks = Blocks(problem.parameters, ["x", "y"])
    steps = [AlternatingSteps()(problem.retain, problem.forget, problem.parameters, state) for _ in range(2)]
    assert [blocks.numbers(step, 2.0) for step in steps] == [
        {"forget_norm/x": 1.5, "forget_norm/y": 2.0},
        {"retain_norm/x": 2.0, "retain_norm/y": 2.0},
    ]
    both = {"cosine/x": -1.0, "cosine/y": 1.0}
    for step in steps:
        both |= blocks.numbers(step, 2.0)
    assert blocks.numbers(problem.run(WeightedSum()), 2.0) == both


def test_lur_s_correction_by_block_by_hand() -> None:
    # alpha = 1/4: u = g_f(1/2, 3/2) = (-9/2, 2), alpha H_r u = (-9/4, 1/2), g_r + u = (-5/2, 4)
    problem = bowls()
    blocks = Blocks(problem.parameters, ["x", "y"])
    for mode in ("chained", "exact"):
        found = blocks.numbers(problem.run(LUR(mode=mode, alpha=AbsoluteAlpha(value=0.25))), 1.0)
        assert found["correction/x"] == pytest.approx(2.25 / 2.5)
        assert found["correction/y"] == pytest.approx(0.5 / 4)
        assert (found["forget_norm/x"], found["cosine/x"], found["cosine/y"]) == pytest.approx((4.5, -1.0, 1.0))
    # its first order: u - g_f = (-3/2, -2), g_r + g_f = (-1, 6)
    first_order = LUR(mode="first_order", alpha=AbsoluteAlpha(value=0.25), measure_every=1)
    found = blocks.numbers(problem.run(first_order, step=1), 1.0)
    assert (found["correction/x"], found["correction/y"]) == pytest.approx((1.5, 2 / 6))


def test_conflicts_are_counted_in_each_block() -> None:
    blocks, state, untouched = Blocks(parameters_of(1, 1, 1), ["a", "b", "c"]), UpdateState(), UpdateState()
    assert blocks.conflict_shares(state) == {}
    for state.cosines, (a, b) in enumerate([(-1.0, 1.0), (-0.5, 0.0), (0.5, -0.1), (-0.1, 0.2)], start=1):
        before = state.block_conflicts
        blocks.count_conflicts({"cosine/a": a, "cosine/b": b, "cosine/c": 1.0}, state)
        assert state.block_conflicts is not before, "a state that was put aside keeps its own counts"
    assert blocks.conflict_shares(state) == {"conflict_share/a": 0.75, "conflict_share/b": 0.25, "conflict_share/c": 0}
    blocks.count_conflicts({"retain_norm/a": 1.0}, state)
    assert state.block_conflicts == {"a": 3, "b": 1, "c": 0}
    assert untouched.block_conflicts == {}


def test_what_a_probe_tells_by_hand() -> None:
    # g_r = (2, 2), g_f = (-3, 4): -6 and 8, and with the forget weight 4 taken out a quarter of that
    problem = bowls()
    blocks = Blocks(problem.parameters, ["x", "y"])
    sketches = probe(problem.retain, problem.forget, problem.parameters)
    whole = pytest.approx(2 / (5 * 8**0.5))
    lain = {"cosine_now": whole, "cosine_now/x": -1.0, "cosine_now/y": 1.0}
    assert blocks.probed(*sketches, "now", 1.0) == {"inner_now": 2.0, "inner_now/x": -6.0, "inner_now/y": 8.0} | lain
    assert blocks.probed(*sketches, "now", 4.0) == {"inner_now": 0.5, "inner_now/x": -1.5, "inner_now/y": 2.0} | lain


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_inner_products_by_block_sum_to_the_whole(weight: float) -> None:
    parameters = parameters_of(*SHAPES)
    (retain, retain_dense), (forget, forget_dense) = (random_gradients(parameters) for _ in range(2))
    found = Blocks(parameters, LABELS).probed(retain, forget, "now", weight)
    whole = sum((r.double() * f.double()).sum().item() for r, f in zip(retain_dense, forget_dense, strict=True))
    assert found["inner_now"] == pytest.approx(whole / weight)
    assert sum(found[f"inner_now/{label}"] for label in ("up", "down", "other")) == pytest.approx(found["inner_now"])
    assert len(found) == 2 * 4


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
