"""Attacks on one model: by hand, against scikit-learn, and where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight

from erase.errors import UserError
from erase.evaluation.unlearning.membership import MEMBER, NON_MEMBER, entropy_attack, loss_attack, svc_attack
from erase.evaluation.unlearning.outputs import FEATURES, Outputs
from tests.unit.evaluation.unlearning.made_outputs import confident, made_parts, random_outputs

SURE, UNSURE = [0.99] * 20, [0.4] * 20


def parts_of(forget: list[float]) -> dict[str, Outputs]:
    return {"forget": confident(forget), "retain": confident(SURE), "test": confident(UNSURE)}


@pytest.mark.parametrize(("forget", "score"), [(SURE, 0.0), (UNSURE, 100.0), ([0.99, 0.4, 0.4, 0.4], 75.0)])
def test_svc_score_is_the_share_called_non_member(forget: list[float], score: float) -> None:
    found = svc_attack(parts_of(forget))
    assert found.score == score
    assert (found.feature, found.direction, found.members, found.non_members) == ("confidence", NON_MEMBER, 20, 20)


@pytest.mark.parametrize(("forget", "score"), [(SURE, 100.0), (UNSURE, 0.0), ([0.99, 0.4, 0.4, 0.4], 25.0)])
def test_entropy_score_is_the_share_called_member(forget: list[float], score: float) -> None:
    found = entropy_attack(parts_of(forget))
    assert (found.score, found.feature, found.direction) == (score, "entropy", MEMBER)


@pytest.mark.parametrize("feature", FEATURES)
def test_svc_is_that_of_scikit_learn_on_each_feature(feature: str) -> None:
    parts = made_parts(seed=1, forget=2.0)
    members = Outputs(parts["retain"].logits[:60], parts["retain"].labels[:60])
    columns = [FEATURES[feature](part).reshape(len(part), -1) for part in (members, parts["test"], parts["forget"])]
    machine = make_pipeline(FunctionTransformer(), SVC(C=3.0, gamma=1 / columns[0].shape[1]))
    machine.fit(np.vstack(columns[:2]), ["in"] * 60 + ["out"] * 60)
    expected = 100 * np.mean(machine.predict(columns[2]) == "out")
    assert svc_attack(parts, feature).score == pytest.approx(expected)


def test_members_are_the_first_retained_samples_as_many_as_there_are_for_test() -> None:
    parts = made_parts(forget=2.0)
    other = Outputs(parts["retain"].logits.copy(), parts["retain"].labels)
    other.logits[60:] = -other.logits[60:]
    assert svc_attack(parts) == svc_attack(parts | {"retain": other})
    other.logits[:60] = -other.logits[:60]
    assert svc_attack(parts) != svc_attack(parts | {"retain": Outputs(other.logits.copy(), other.labels)})


def test_fewer_retained_samples_than_test_are_all_taken() -> None:
    parts = made_parts()
    few = Outputs(parts["retain"].logits[:25], parts["retain"].labels[:25])
    found = svc_attack(parts | {"retain": few})
    assert (found.members, found.non_members) == (25, 60)


def test_entropy_attack_weighs_both_kinds_alike() -> None:
    """However many more retained samples there are, the line stays where it is: an independent solver agrees."""
    from scipy.optimize import minimize

    parts = made_parts(forget=2.0)
    retain, test, forget = (FEATURES["entropy"](parts[name]) for name in ("retain", "test", "forget"))
    values, kinds = np.concatenate([retain, test]), np.repeat([1.0, -1.0], [len(retain), len(test)])
    weights = compute_sample_weight("balanced", kinds)

    def objective(line: np.ndarray) -> float:
        losses = weights * np.logaddexp(0, -kinds * (line[0] * values + line[1]))
        return float(0.5 * line[0] ** 2 + losses.sum())

    slope, offset = minimize(objective, np.zeros(2), tol=1e-12).x
    assert entropy_attack(parts).score == pytest.approx(100 * np.mean(slope * forget + offset > 0))


def test_loss_attack_tells_apart_what_is_apart() -> None:
    assert loss_attack(parts_of(SURE)).score == 100.0


def test_loss_attack_is_at_chance_where_nothing_differs() -> None:
    same = {"forget": random_outputs(2000, 1, 1.0), "test": random_outputs(2000, 2, 1.0)}
    assert loss_attack(same).score == pytest.approx(50, abs=3)


def test_loss_attack_takes_as_many_of_either_by_its_seed() -> None:
    parts = {"forget": random_outputs(40, 1, 1.0), "test": random_outputs(200, 2, 2.0)}
    found = loss_attack(parts, seed=1)
    assert (found.members, found.non_members, found.feature) == (40, 40, "loss")
    assert found == loss_attack(parts, seed=1)
    assert len({loss_attack(parts, seed).score for seed in range(4)}) > 1


def test_loss_attack_refuses_a_handful_of_samples() -> None:
    with pytest.raises(UserError, match=r"found 9 .* needs 10"):
        loss_attack({"forget": confident([0.9] * 9), "test": confident(UNSURE)})


def test_unknown_feature_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"found 'logits'; it is one of confidence, correctness"):
        svc_attack(parts_of(SURE), "logits")
