"""Weights: one hash wherever they came from, safetensors alone, and nothing half filled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from erase.errors import UserError
from erase.evaluation.metrics.loading import device, hash_weights, library, load_exactly, read_weights


def test_the_hash_is_of_names_shapes_and_values() -> None:
    torch.manual_seed(0)
    one, same = nn.Linear(3, 2), nn.Linear(3, 2)
    same.load_state_dict(one.state_dict())
    assert hash_weights(one) == hash_weights(same)
    with torch.no_grad():
        same.weight[1, 2] += 1e-6
    assert hash_weights(one) != hash_weights(same)
    turned = nn.Linear(2, 3)
    turned.weight.data, turned.bias.data = one.weight.data.view(2, 3).T.contiguous(), torch.zeros(3)
    assert len({hash_weights(one), hash_weights(turned), hash_weights(nn.Sequential(one))}) == 3


def test_scalars_and_half_precision_are_hashed() -> None:
    norm = nn.BatchNorm1d(4)  # it counts batches in a tensor without a dimension
    assert hash_weights(norm) != hash_weights(norm.bfloat16())


def test_weights_are_read_from_safetensors(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_weights(str(tmp_path / "w.safetensors"), "key", "do this")["x"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.pkl"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"^key: .* is a pickle, which can run code; do this"):
        read_weights(str(tmp_path / name), "key", "do this")


@pytest.mark.parametrize("source", ["nothing.safetensors", "owner/name", "a/b/c", "./owner/name", "word"])
def test_what_is_not_there_is_an_error_with_the_remedy(source: str) -> None:
    with pytest.raises(UserError, match=r"^key: .*; do this"):
        read_weights(source, "key", "do this")


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"x": torch.ones(200)}, file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(str(file), "key", "do this")


def test_weights_must_fit_exactly() -> None:
    right = nn.Linear(3, 2).state_dict()
    load_exactly(nn.Linear(3, 2), right, "key", "file")
    for wrong in ({"weight": right["weight"]}, {**right, "more": torch.ones(1)}, {**right, "bias": torch.ones(3)}):
        with pytest.raises(UserError, match=r"^key: file holds other weights than are needed"):
            load_exactly(nn.Linear(3, 2), wrong, "key", "file")


def test_an_identity_names_the_version_and_judges_run_where_they_can() -> None:
    assert library("torch")["version"].split("+")[0] == torch.__version__.split("+")[0]
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")
