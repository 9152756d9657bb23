"""Membership inference from one model's outputs: was a forgotten sample trained on? No shadow models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.svm import SVC

from erase.errors import UserError
from erase.evaluation.unlearning.outputs import FEATURES, Array, Outputs, Parts, required

FEWEST = 10
"""Samples of each kind that the loss attack needs: it is scored on a tenth that is held out."""
NON_MEMBER = "share of the forget set called non-member; higher is more forgotten, retraining's value is the goal"
MEMBER = "share of the forget set called member; lower is more forgotten, retraining's value is the goal"
APART = "share of forget and test samples told apart; 50 is chance, retraining's value is the goal"


@dataclass(frozen=True)
class Attack:
    """What an attack found, and what the number means."""

    attack: str
    feature: str
    direction: str
    score: float
    """Percent"""
    members: int
    """Samples that stood for what was trained on."""
    non_members: int
    """Samples that stood for what was not."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def svc_attack(parts: Parts, feature: str = "confidence") -> Attack:
    """SalUn's attack (Fan et al. 2024; with the feature ``confidence`` it is the MIA of its tables).

    A support vector machine (C = 3, RBF kernel, gamma = 1 / number of features) is fitted on the first len(test)
    samples of D_r as members, fewer if there are fewer, and all of the test set as non-members, both as the unlearned
    model sees them. The order of D_r must mean nothing: sorted by class, the members would be of few classes. Where
    members and non-members share every value, as ``correctness`` of equal accuracies, the answer means nothing.
    """
    if feature not in FEATURES:
        raise UserError(f"feature: found {feature!r}; it is one of {', '.join(FEATURES)}")
    forget, retain, test = (_columns(part, feature) for part in required(parts, "forget", "retain", "test"))
    members = retain[: len(test)]
    machine = SVC(C=3, gamma="auto", kernel="rbf").fit(*_labelled(members, test))
    score = 100 * float(np.mean(machine.predict(forget) == 0))
    return Attack("SVC on retain against test", feature, NON_MEMBER, score, len(members), len(test))


def entropy_attack(parts: Parts) -> Attack:
    """SFRon's attack (Huang et al. 2024), also SSD's and Bad Teacher's: logistic regression on the entropy.

    Fitted on all of D_r against all of the test set with balanced class weights.
    """
    forget, retain, test = (_columns(part, "entropy") for part in required(parts, "forget", "retain", "test"))
    line = LogisticRegression(class_weight="balanced").fit(*_labelled(retain, test))
    score = 100 * float(np.mean(line.predict(forget) == 1))
    return Attack("logistic regression on retain against test", "entropy", MEMBER, score, len(retain), len(test))


def loss_attack(parts: Parts, seed: int = 0) -> Attack:
    """The attack of the NeurIPS-2023 challenge's starting kit: logistic regression on the loss, D_f against test.

    As many of either (the larger set is sampled by ``seed``); mean accuracy on a held-out tenth of ten stratified
    splits.
    """
    forget, test = (-part.log_confidence for part in required(parts, "forget", "test"))
    count = min(len(forget), len(test))
    if count < FEWEST:
        raise UserError(f"loss attack: found {count} samples of forget or test; it needs {FEWEST} of each")
    random = np.random.default_rng(seed)
    sides = [
        losses if len(losses) == count else random.choice(losses, count, replace=False) for losses in (forget, test)
    ]
    splits = StratifiedShuffleSplit(n_splits=10, test_size=0.1, random_state=seed)
    losses, members = _labelled(*(losses[:, None] for losses in sides))
    scores = cross_val_score(LogisticRegression(), losses, members, cv=splits, scoring="accuracy")
    feature = "loss"
    return Attack(
        "logistic regression on forget against test", feature, APART, 100 * float(scores.mean()), count, count
    )


def _columns(outputs: Outputs, feature: str) -> Array:
    return FEATURES[feature](outputs).reshape(len(outputs), -1)


def _labelled(members: Array, others: Array) -> tuple[Array, Array]:
    """Samples ``[n, d]`` and whether each is a member, 1 or 0."""
    return np.concatenate([members, others]), np.repeat([1.0, 0.0], [len(members), len(others)])
