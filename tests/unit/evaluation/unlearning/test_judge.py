"""One model judged: every number with its identity, and retraining as the measure."""

from __future__ import annotations

import json

import pytest

from erase.errors import UserError
from erase.evaluation.unlearning.distances import average_gap, js_distance, kl_divergence
from erase.evaluation.unlearning.judge import MEASURES, judge, measure, values
from erase.evaluation.unlearning.membership import NON_MEMBER
from erase.evaluation.unlearning.outputs import FEATURES, Outputs
from tests.unit.evaluation.unlearning.made_outputs import made_parts

PARTS, REFERENCE = made_parts(0, forget=4.0), made_parts(0, forget=1.0)


def test_every_number_says_what_it_is() -> None:
    judged = judge(PARTS, REFERENCE)
    assert set(judged) == set(MEASURES) - {"TA_forgotten", "RTE"}
    assert list(judged) == [key for key in MEASURES if key in judged]
    for entry in judged.values():
        assert entry["meaning"] and entry["wanted"] and isinstance(entry["value"], float)
    attacks = {key: entry["feature"] for key, entry in judged.items() if key.startswith("MIA")}
    assert attacks.pop("MIA") == "confidence"
    assert sorted(attacks.values()) == sorted([*set(FEATURES) - {"confidence"}, "entropy", "loss"])
    assert judged["MIA"]["direction"] == NON_MEMBER
    assert all(judged[key]["direction"] and judged[key]["unit"] == "%" for key in ("MIA", *attacks))


def test_a_judgement_is_json() -> None:
    judged = judge(PARTS, REFERENCE)
    assert json.loads(json.dumps(judged, allow_nan=False)) == judged


def test_retraining_is_at_no_distance_from_itself() -> None:
    found = values(judge(REFERENCE, REFERENCE, features=()))
    assert {found[key] for key in ("dUA", "dRA", "dTA", "dMIA", "Avg_gap", "JS", "JS_nats", "KL")} == {0.0}
    assert found["ToW"] == 1


def test_gap_is_of_the_scores_of_both_models() -> None:
    found, other = values(judge(PARTS, REFERENCE)), values(judge(REFERENCE))
    assert found["Avg_gap"] == pytest.approx(average_gap(found, other))
    assert found["dUA"] == pytest.approx(found["UA"] - other["UA"])
    assert found["dUA"] < 0  # what still knows the forget set errs less on it
    for key in ("RA", "TA", "MIA"):
        assert found[f"d{key}"] == pytest.approx(found[key] - other[key])


def test_distances_are_of_the_forget_set_and_from_retraining() -> None:
    found, own, other = values(judge(PARTS, REFERENCE, features=())), PARTS["forget"], REFERENCE["forget"]
    assert found["JS"] == js_distance(own, other) > 0
    assert found["KL"] == kl_divergence(own, other) != kl_divergence(other, own)


def test_without_a_reference_there_are_no_gaps() -> None:
    assert not {"Avg_gap", "ToW", "JS", "dUA"} & set(judge(PARTS))


def test_chosen_features_alone_are_attacked_and_confidence_always() -> None:
    found = judge(PARTS, features=("entropy",))
    assert {"MIA", "MIA_entropy"} <= set(found)
    assert not {"MIA_m_entropy", "MIA_probabilities", "MIA_correctness"} & set(found)


def test_an_attack_that_cannot_be_made_has_no_value_and_says_why() -> None:
    few = Outputs(PARTS["forget"].logits[:3], PARTS["forget"].labels[:3])
    judged = judge(PARTS | {"forget": few})
    assert judged["MIA_loss"]["value"] is None and "found 3 samples" in judged["MIA_loss"]["why"]
    assert "MIA_loss" not in values(judged)


def test_pictures_of_a_forgotten_class_have_an_accuracy_of_their_own() -> None:
    assert "TA_forgotten" in judge(PARTS | {"test_forgotten": PARTS["forget"]})


def test_run_time_joins_with_its_identity() -> None:
    assert measure("RTE", 12.5)["unit"] == "s"
    assert values({"RTE": measure("RTE", 12.5)}) == {"RTE": 12.5}


def test_mistakes_are_refused_before_anything_is_fitted() -> None:
    with pytest.raises(UserError, match="found 'logits'"):
        judge(PARTS, features=("logits",))
    with pytest.raises(UserError, match="test: found no samples"):
        judge({"forget": PARTS["forget"], "retain": PARTS["retain"]})
