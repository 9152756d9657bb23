"""What is done to the weights before the first step: nothing, everything, or the trim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from erase.classification.starts import STARTS, Scratch, Trained, Trim
from erase.errors import UserError
from tests.properties import assert_same_bits
from tests.unit.classification.softmax_regression import Array
from tests.unit.classification.unlearnings import linear, make_task, samples, tiny_splits, two_layers, weights


def state(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def moved() -> nn.Sequential:
    """A network whose statistics have moved."""
    model = two_layers()
    model.get_buffer("norm.running_mean").fill_(0.5)
    return model


def test_trained_leaves_every_bit() -> None:
    assert_same_bits(state(make_task(model=moved(), start=Trained()).model), state(moved()))


def test_scratch_takes_weights_and_statistics_of_a_network_that_saw_nothing() -> None:
    task = make_task(model=moved(), start=Scratch(), fresh=lambda: two_layers(seed=5))
    assert_same_bits(state(task.model), state(two_layers(seed=5)))


def drawn_as_the_generator_stands() -> nn.Module:
    network = nn.Sequential()
    network.add_module("flat", nn.Flatten())
    network.add_module("fc", nn.Linear(4, 3, bias=False))
    return network


def test_fresh_weights_follow_from_the_seed_alone() -> None:
    found = []
    for seed, elsewhere in ((1, 5), (1, 6), (2, 5)):
        model = linear()
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        found.append(
            weights(make_task(model=model, start=Scratch(), fresh=drawn_as_the_generator_stands, seed=seed).model)
        )
        assert torch.equal(torch.get_rng_state(), before), "drawing them disturbs nothing else"
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).all()


def test_each_purpose_has_fresh_weights_of_its_own() -> None:
    """What is trimmed begins anew, not where the original and the retrained reference began."""
    anew = make_task(model=linear(), start=Trim(share=1.0, layers=("fc",)), fresh=drawn_as_the_generator_stands)
    first = make_task(model=linear(), start=Scratch(), fresh=drawn_as_the_generator_stands)
    assert (weights(anew.model) != weights(first.model)).all()


def trimmed(**given: object) -> Array:
    return weights(make_task(start=Trim(**given)).model)  # type: ignore[arg-type]


def test_the_trim_begins_the_most_sensitive_entries_anew_and_leaves_the_rest() -> None:
    start, fresh = weights(linear()), weights(linear(seed=9))
    sensitivity = np.abs(samples(tiny_splits().forget).gradient(start) * start)
    for count in (1, 3, 12):
        found = trimmed(share=count / 12)
        chosen = np.zeros(12, dtype=bool)
        chosen[np.argsort(-sensitivity.ravel())[:count]] = True
        np.testing.assert_array_equal(found, np.where(chosen.reshape(3, 4), fresh, start))


def test_only_the_named_layers_are_trimmed() -> None:
    task = make_task(
        model=two_layers(), start=Trim(share=1.0, layers=("norm", "fc.bias")), fresh=lambda: two_layers(seed=5)
    )
    before, after, fresh = (dict(m.named_parameters()) for m in (two_layers(), task.model, two_layers(seed=5)))
    for name, p in after.items():
        expected = fresh if name.startswith("norm.") or name == "fc.bias" else before
        assert torch.equal(p, expected[name]), name


def test_the_share_is_of_the_named_layers_alone() -> None:
    task = make_task(model=two_layers(), start=Trim(share=0.5, layers=("fc",)), fresh=lambda: two_layers(seed=5))
    changed = {
        name: int((p != q).sum())
        for (name, p), q in zip(task.model.named_parameters(), two_layers().parameters(), strict=True)
    }
    assert changed["fc.weight"] + changed["fc.bias"] == round(0.5 * (36 + 3))
    assert not any(count for name, count in changed.items() if not name.startswith("fc"))


@pytest.mark.parametrize("layer", ["layer4", "f", "fc.weigh"])
def test_a_layer_that_is_not_there_is_refused(layer: str) -> None:
    with pytest.raises(UserError, match=f"start.layers: found '{layer}', which no trained parameter lies in; fc"):
        trimmed(layers=("fc", layer))


def test_a_layer_of_a_transformers_network_is_named_as_the_log_names_it() -> None:
    """Its parameters lie in a wrapper, whose name may be said or left out."""
    parameters = dict.fromkeys(["network.classifier.weight", "network.vit.embeddings.cls_token"], torch.ones(40))
    assert not [*Trim(layers=("classifier", "network.vit", "vit.embeddings")).problems(parameters)]
    assert [*Trim(layers=("fc",)).problems(parameters)] == [
        "start.layers: found 'fc', which no trained parameter lies in; classifier, vit"
    ]


def test_a_share_that_is_no_entry_is_refused() -> None:
    with pytest.raises(UserError, match=r"start.share: found 0.001, which of 39 entries is none"):
        make_task(model=two_layers(), start=Trim(share=1e-3, layers=("fc",)), fresh=two_layers)


def test_a_start_counts_what_it_evaluates() -> None:
    assert make_task().evaluations == 0
    assert make_task(start=Trim(share=0.5)).evaluations == 4
    assert make_task(start=Scratch()).evaluations == 0


def test_a_start_leaves_no_gradient_behind() -> None:
    for kind in STARTS.values():
        start = kind(share=0.5) if kind is Trim else kind()
        assert all(p.grad is None for p in make_task(start=start).trainable.values())


def test_the_table_finds_each_start_under_its_own_name() -> None:
    assert {name: kind().name for name, kind in STARTS.items()} == {name: name for name in STARTS}
