"""Membership inference with other models to compare with: RMIA and U-LiRA, for any number of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from erase.errors import UserError
from erase.evaluation.unlearning.outputs import Array

FEWEST = 3
"""Shadow models of each kind: one is attacked, and of two there is a variance."""
POOLED_BELOW = 64
"""With fewer shadow models of each kind all samples share one variance, as LiRA's authors advise."""


@dataclass(frozen=True)
class ShadowAttack:
    """How well an attack separates two kinds, and what it looked at."""

    attack: str
    feature: str
    direction: str
    accuracy: float
    """Percent, balanced: the mean over both kinds."""
    auc: float
    """Percent: how often a case of the first kind scores above one of the second."""
    models: int
    """Reference models, or shadow models of each kind."""
    retrained_accuracy: float | None = None
    """What a retrained model in the unlearned one's place gets; ``None`` where that is 50 by construction."""
    retrained_auc: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def rmia_scores(target: Array, references: Array) -> Array:
    """log p_target(y|x) - log mean_k p_k(y|x), ``[n]``; from log-confidences, ``[n]`` and ``[k, n]``."""
    _check(target[None], references)
    return np.asarray(target - (logsumexp(references, axis=0) - np.log(len(references))))


def rmia(forget: Array, test: Array, forget_references: Array, test_references: Array) -> ShadowAttack:
    """RMIA (Zarifzadeh et al. 2024) in the offline form that unlearning studies use: D_f against unseen samples.

    The references are trained on D_r alone. A sample scores as :func:`rmia_scores` says; comparing it with a population
    sample by sample, as the paper does, orders samples alike. All arguments are log-confidences: ``[n_f]``, ``[n_t]``
    of the unlearned model, ``[k, n_f]``, ``[k, n_t]`` of the references.
    """
    scores = rmia_scores(forget, forget_references), rmia_scores(test, test_references)
    direction = (
        "mean of the shares of forget and of test samples told apart, at the threshold that is best for these very "
        "samples: chance is a little above 50. AUC 50: as unknown as what it is compared with; where that is not drawn "
        "as the forgotten samples were, retraining is not at 50 either, see retrained_auc"
    )
    members, found = np.repeat([1, 0], [len(forget), len(test)]), np.concatenate(scores)
    return ShadowAttack(
        "RMIA, forget against test, at the threshold of the best TPR - FPR",
        "confidence of the label against its mean over the references",
        direction,
        _best_balanced_accuracy(members, found),
        100 * float(roc_auc_score(members, found)),
        len(forget_references),
    )


def rmia_beside_retraining(forget: Array, test: Array, forget_retrained: Array, test_retrained: Array) -> ShadowAttack:
    """:func:`rmia` of the unlearned model, and of retrained ones in its place.

    Each of the k retrained models is attacked by the k - 1 others, and the mean taken; the unlearned one by all but the
    first, which is of its own seed: as many references, and none of them nearer to it, so that both compare. What is
    flipped, or of a class that no test sample is of, is told apart from the test set after perfect unlearning, too.

    Args:
        forget: ``[n_f]`` log-confidences of the unlearned model.
        test: ``[n_t]`` the same of samples that no model was trained on.
        forget_retrained: ``[k, n_f]`` of k retrained models, 2 or more; the first of the unlearned one's seed.
        test_retrained: ``[k, n_t]``
    """
    pairs = list(zip(forget_retrained, test_retrained, strict=True))
    if len(pairs) < 2:
        raise UserError(f"shadow models: found {len(pairs)} retrained; one is attacked by the others; give 2 or more")
    others = [[np.delete(of, left, axis=0) for of in (forget_retrained, test_retrained)] for left in range(len(pairs))]
    without = [rmia(*pair, *references) for pair, references in zip(pairs, others, strict=True)]
    return replace(
        rmia(forget, test, *others[0]),
        retrained_accuracy=fmean(attack.accuracy for attack in without),
        retrained_auc=fmean(attack.auc for attack in without),
    )


def _best_balanced_accuracy(members: Array, scores: Array) -> float:
    """50 (TPR + 1 - FPR), in percent, at the threshold where it is largest, whatever the numbers of samples are."""
    false, true, _ = roc_curve(members, scores)
    return float(50 * (1 + np.max(true - false)))


def ulira(unlearned: Array, retrained: Array, pooled: bool | None = None) -> ShadowAttack:
    """U-LiRA (Hayes et al. 2024, "Inexact Unlearning Needs More Careful Evaluations..."): an attack for each sample.

    For each sample x a Gaussian of its margin log p_y - log(1 - p_y) is fitted to models that were trained with x and
    unlearned it, and one to models that never saw it; the attacked model's likelihood ratio decides which it is. Each
    model is attacked in turn, with the i-th of both kinds left out of the fit, so that chance is just 50.

    Args:
        unlearned: ``[m, n]`` margins of n forgotten samples under m unlearned shadow models; 3 or more.
        retrained: ``[m, n]`` the same under as many retrained ones.
        pooled: Whether all samples share each kind's mean variance; ``None``: below 64 models.
    """
    _check(unlearned, retrained)
    count = len(unlearned)
    if count != len(retrained) or count < FEWEST:
        found = f"{count} unlearned and {len(retrained)} retrained"
        raise UserError(f"shadow models: found {found}; U-LiRA needs as many of either kind, and {FEWEST} at least")
    pooled = count < POOLED_BELOW if pooled is None else pooled
    ratios = np.stack([_left_out(unlearned, retrained, model, pooled) for model in range(count)], axis=1)
    kinds = np.repeat([1, 0], ratios[0].size)
    return ShadowAttack(
        f"U-LiRA, unlearned against retrained, {'one variance' if pooled else 'a variance for each sample'}",
        "margin of the label, sample by sample",
        "share of models rightly called unlearned or retrained; 50 is chance: unlearning is as good as retraining",
        50 * float(np.mean(ratios[0] > 0) + np.mean(ratios[1] <= 0)),
        100 * float(roc_auc_score(kinds, ratios.reshape(-1))),
        count,
    )


def _left_out(unlearned: Array, retrained: Array, model: int, pooled: bool) -> Array:
    """``[2, n]`` log-likelihood ratios of one model of either kind, by the others' Gaussians."""
    targets = np.stack([unlearned[model], retrained[model]])
    logs = []
    for margins in (unlearned, retrained):
        others = np.delete(margins, model, axis=0)
        variance = others.var(axis=0, ddof=1)
        if pooled:
            variance = np.full_like(variance, variance.mean())
        if not variance.all():
            raise UserError("shadow models: found a sample of the same margin in all; give each model its own seed")
        logs.append(norm.logpdf(targets, others.mean(axis=0), np.sqrt(variance)))
    return np.asarray(logs[0] - logs[1])


def _check(first: Array, second: Array) -> None:
    """Refuses models that were asked about different samples, and what is not a number."""
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not (first.size and second.size):
        raise ValueError(f"models must be asked about the same samples: [m, n], found {first.shape}, {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("shadow models: found confidences that are not finite: a model diverged; leave it out")
