"""Gathering, averaging, sketching and shifting, each against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from erase import gradients
from erase.gradients import (
    average,
    buckets,
    clear,
    gather,
    mean_over_processes,
    parameter_norm,
    preserved,
    restore,
    shift,
    sketch,
    world_size,
)
from erase.inner_products import cosine
from tests.properties import assert_parameters_restored, assert_same_bits
from tests.unit.updates import many_processes
from tests.unit.updates.problems import Network, flat_gradient, summed

ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
Reports = list[dict[str, Any]]


def with_gradient(*tensors: torch.Tensor) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(tensor)) for tensor in tensors]
    for p, tensor in zip(parameters, tensors, strict=True):
        p.grad = tensor
    return parameters


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return many_processes.run(tmp_path_factory.mktemp("two_processes"), 2)


def test_gather_sums_the_micro_batches() -> None:
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    total = gather(summed([p], lambda t: 3 * t.sum(), lambda t: t @ t), [p])
    assert flat_gradient([p]).tolist() == [5.0, 7.0]  # (3, 3) + (2, 4)
    assert total == 14.0  # 9 + 5


def test_gather_adds_to_the_gradient_that_is_there() -> None:
    p = nn.Parameter(torch.zeros(2))
    for expected in (1.0, 2.0):
        gather(summed([p], torch.sum), [p])
        assert flat_gradient([p]).tolist() == [expected, expected]


def test_gather_gives_a_parameter_the_loss_does_not_reach_a_zero_gradient() -> None:
    used, idle = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))
    gather(summed([used], torch.sum), [used, idle])
    assert flat_gradient([used, idle]).tolist() == [1.0, 0.0, 0.0]


def test_gather_holds_one_micro_batch_at_a_time() -> None:
    p, alive = nn.Parameter(torch.ones(1)), []

    def objective() -> Any:
        for _ in range(3):
            alive.append(p.grad is not None)  # the micro-batch before has had its backward pass
            yield p.sum()

    gather(objective, [p])
    assert alive == [False, True, True]


def test_a_missing_gradient_is_an_error_that_counts_them() -> None:
    parameters = [*with_gradient(torch.ones(1)), nn.Parameter(torch.ones(1))]
    with pytest.raises(RuntimeError, match="1 of 2 parameters have no gradient"):
        gradients.gradients(parameters)
    clear(parameters)
    assert [p.grad for p in parameters] == [None, None]


def test_sketch_of_small_tensors_is_the_whole_gradient() -> None:
    parts = [torch.randn(4096), torch.randn(64, 64), torch.randn(()), torch.randn(0)]
    assert torch.equal(sketch(with_gradient(*parts)), torch.cat([part.reshape(-1) for part in parts]))


@pytest.mark.parametrize("shape", [(4097,), (300, 400), (320, 320, 3, 3), (1280, 768)])
def test_sketch_estimates_the_norm_of_a_large_tensor_within_a_tenth(shape: tuple[int, ...]) -> None:
    gradient = torch.randn(shape)
    estimate = sketch(with_gradient(gradient)).norm()
    assert estimate.item() == pytest.approx(gradient.norm().item(), rel=0.1)


@pytest.mark.parametrize("inputs", [271, 272, 17 * 19])
def test_sketch_sees_every_input_of_a_layer(inputs: int) -> None:
    """Each row's gradient is along one input: of 272, every 17th entry would be of 16 of them, in all rows."""
    along = torch.randn(inputs)
    along[::17] = 0
    gradient = torch.outer(torch.randn(64), along)
    assert sketch(with_gradient(gradient)).norm().item() == pytest.approx(gradient.norm().item(), rel=0.3)


@pytest.mark.parametrize("overlap", [-0.5, 0.0, 0.5])
def test_sketch_estimates_the_cosine_of_large_tensors(overlap: float) -> None:
    left = torch.randn(500, 400)
    right = overlap * left + (1 - overlap**2) ** 0.5 * torch.randn(500, 400)
    assert cosine(sketch(with_gradient(left)), sketch(with_gradient(right))) == pytest.approx(overlap, abs=0.05)


def test_sketch_is_linear_and_a_copy_in_at_least_float32() -> None:
    left, right = torch.randn(9000), torch.randn(9000)
    both = sketch(with_gradient(left + right))
    torch.testing.assert_close(both, sketch(with_gradient(left)) + sketch(with_gradient(right)))
    parameters = with_gradient(torch.ones(3, dtype=torch.float16))
    kept = sketch(parameters)
    parameters[0].grad.zero_()
    assert kept.dtype == torch.float32
    assert kept.tolist() == [1.0, 1.0, 1.0]


def test_parameter_norm_is_over_all_parameters() -> None:
    assert parameter_norm([nn.Parameter(torch.full((9,), 1.0)), nn.Parameter(torch.tensor([[4.0]]))]) == 5.0


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1.0, 0.0], [0.0, 2.0], 0.0),
        ([1.0, 1.0], [3.0, 3.0], 1.0),
        ([1.0, 1.0], [-2.0, -2.0], -1.0),
        ([3.0, 4.0], [4.0, 3.0], 0.96),  # 24 / 25
        ([0.0, 0.0], [4.0, 3.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_cosine_by_hand(left: list[float], right: list[float], expected: float) -> None:
    assert cosine(torch.tensor(left), torch.tensor(right)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [1e-18, 1e-9, 1e9, 1e18])
def test_cosine_does_not_depend_on_the_vectors_lengths(size: float) -> None:
    vector = torch.tensor([3 * size, 4 * size])
    assert cosine(vector, vector) == pytest.approx(1.0)
    assert cosine(vector, -vector) == pytest.approx(-1.0)


@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3))
def test_cosine_stays_within_one(values: list[float]) -> None:
    vector = torch.tensor(values)
    assert -1.0 <= cosine(vector, vector * 1.7) <= 1.0


def test_shift_moves_by_step_times_direction_in_place_and_restore_puts_back() -> None:
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    place = p.data_ptr()
    shift([p], [torch.tensor([4.0, -8.0])], -0.25)
    assert p.tolist() == [0.0, 4.0]
    restore([p], [torch.tensor([9.0, 8.0])])
    assert p.tolist() == [9.0, 8.0]
    assert p.data_ptr() == place
    assert p.requires_grad


@given(values=st.lists(ANY_FLOAT, min_size=1, max_size=8))
def test_preserved_puts_back_every_bit(values: list[float]) -> None:
    parameters = [nn.Parameter(torch.tensor(values)), nn.Parameter(torch.tensor(-0.0))]
    with assert_parameters_restored(parameters), preserved(parameters) as saved:
        assert_same_bits(saved, parameters)
        for p in parameters:
            p.data.mul_(0.3).add_(1.0)
        assert_same_bits(saved, [torch.tensor(values), torch.tensor(-0.0)])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_preserved_puts_back_when_the_body_raises(error: type[BaseException]) -> None:
    parameters = Network(torch.float32).parameters()

    def body() -> None:
        with preserved(parameters):
            parameters[0].data.mul_(1.1)
            raise error

    with assert_parameters_restored(parameters), pytest.raises(error):
        body()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([3], [[3]]),
        ([6, 6, 1], [[6, 6], [1]]),
        ([11, 12, 3], [[11], [12], [3]]),  # 11 + 12 would be too many
        ([1, 40, 2, 3], [[1], [40], [2, 3]]),
    ],
)
def test_a_bucket_is_never_longer_than_the_most_but_for_one_tensor(
    sizes: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "BUCKET_ELEMENTS", 12)
    assert [[t.numel() for t in bucket] for bucket in buckets([torch.zeros(n) for n in sizes])] == expected


def test_one_process_has_nothing_to_average() -> None:
    tensor = torch.ones(2)
    average([tensor])
    assert tensor.tolist() == [1.0, 1.0]
    assert (world_size(), mean_over_processes(3.5, torch.device("cpu"))) == (1, 3.5)


@pytest.mark.parametrize("way", ["averaged", "bucketed"])
def test_two_processes_average_tensors_of_any_shape_and_type(reports: Reports, way: str) -> None:
    pairs = zip(many_processes.tensors(0, 7), many_processes.tensors(1, 7), strict=True)
    expected = [((a.double() + b.double()) / 2).to(a.dtype) for a, b in pairs]
    for report in reports:
        assert_same_bits(report[way], expected)
        assert report["world_size"] == 2
        assert report["mean"] == 0.5


def test_all_reduce_calls_do_not_grow_with_the_number_of_tensors(reports: Reports) -> None:
    for report in reports:
        assert report["calls"] == {1: 1, 3: 1, 300: 1}
        assert report["bucketed_calls"] == 3  # 6 + 1 + 5, 6 + 1 + 5 and 6 entries, in buckets of 12


def test_a_shared_gradient_stays_under_the_averaged_sum(reports: Reports) -> None:
    for report in reports:
        assert report["on_top"] == [101.5, 201.5]  # (100, 200) + (1 + 2) / 2
