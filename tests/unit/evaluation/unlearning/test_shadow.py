"""RMIA and U-LiRA: by hand, by theorem, and where models do not differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from erase.errors import UserError
from erase.evaluation.unlearning.shadow import rmia, rmia_beside_retraining, rmia_scores, ulira

RANDOM = np.random.default_rng(0)


def test_rmia_score_by_hand() -> None:
    target, references = np.log([0.8, 0.1]), np.log([[0.2, 0.1], [0.6, 0.3]])
    assert rmia_scores(target, references) == pytest.approx([math.log(0.8 / 0.4), math.log(0.1 / 0.2)])


def test_rmia_of_counted_scores() -> None:
    """Scores log 2, log 4, 0 of the forget set against 0, -log 2: the best threshold, log 2, misses one in three."""
    flat = np.zeros((4, 3))
    found = rmia(np.log([2.0, 4.0, 1.0]), np.log([1.0, 0.5]), flat, flat[:, :2])
    assert found.accuracy == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found.auc == pytest.approx(100 * 5.5 / 6)
    assert found.models == 4


def test_rmia_auc_is_the_mann_whitney_statistic() -> None:
    forget, test = -RANDOM.exponential(size=30), -RANDOM.exponential(size=50)
    references = -RANDOM.exponential(size=(4, 30)), -RANDOM.exponential(size=(4, 50))
    scores = rmia_scores(forget, references[0]), rmia_scores(test, references[1])
    expected = mannwhitneyu(*scores).statistic / (30 * 50)
    assert rmia(forget, test, *references).auc == pytest.approx(100 * expected)


def test_comparing_with_a_population_tells_members_apart_as_the_ratio_alone_does() -> None:
    """The paper's score by its definition: the share of a population z with [p(x) / mean_k p_k(x)] >= that of z."""
    forget, test = -RANDOM.exponential(0.5, size=30), -RANDOM.exponential(1.0, size=40)
    references = -RANDOM.exponential(1.0, size=(4, 70))
    both, members = np.concatenate([forget, test]), np.repeat([1, 0], [30, 40])
    ratios = [np.exp(both[x]) / np.mean([np.exp(reference[x]) for reference in references]) for x in range(70)]
    shares = [sum(ratio >= other for other in ratios) / 70 for ratio in ratios]
    found = rmia(forget, test, references[:, :30], references[:, 30:])
    assert 50 < found.auc < 100
    assert found.auc == pytest.approx(100 * roc_auc_score(members, shares))


def test_rmia_of_a_target_that_is_its_reference_is_at_chance() -> None:
    forget, test = -RANDOM.exponential(size=30), -RANDOM.exponential(size=50)
    assert rmia(forget, test, forget[None], test[None]).auc == pytest.approx(50)


def test_rmia_of_what_no_test_sample_is_like_compares_with_retraining_and_not_with_50() -> None:
    """A forgotten class lies far from the test set: retraining is not at 50, nor is unlearning that is as good.

    A model that still knows the class is told apart by far more.
    """
    random = np.random.default_rng(3)

    def models(center: float, count: int, samples: int) -> np.ndarray:
        return -np.logaddexp(0, -random.normal(center, 2.0, size=(count, samples)))  # log-confidences of margins

    forget, test = models(-6, 4, 400), models(7, 4, 600)
    good = rmia_beside_retraining(models(-6, 1, 400)[0], models(7, 1, 600)[0], forget, test)
    assert good.retrained_auc is not None and good.retrained_accuracy is not None
    assert good.retrained_auc < 45
    assert good.auc == pytest.approx(good.retrained_auc, abs=5)
    assert good.accuracy == pytest.approx(good.retrained_accuracy, abs=5)
    kept = rmia_beside_retraining(models(5, 1, 400)[0], models(7, 1, 600)[0], forget, test)
    assert kept.auc > good.auc + 40
    assert (kept.retrained_auc, kept.models) == (good.retrained_auc, 3)


def test_rmia_beside_retraining_leaves_each_out_in_turn() -> None:
    forget, test = -RANDOM.exponential(size=(2, 30)), -RANDOM.exponential(size=(2, 50))
    own = -RANDOM.exponential(size=30), -RANDOM.exponential(size=50)
    found = rmia_beside_retraining(*own, forget, test)
    assert found.auc == rmia(*own, forget[1:], test[1:]).auc  # by those of other seeds than its own
    swapped = [rmia(forget[i], test[i], forget[1 - i][None], test[1 - i][None]).auc for i in (0, 1)]
    assert found.retrained_auc == pytest.approx(np.mean(swapped))
    with pytest.raises(UserError, match="found 1 retrained"):
        rmia_beside_retraining(*own, forget[:1], test[:1])


def test_a_model_that_is_its_own_seed_s_retrained_one_is_told_apart_as_retrained_ones_are() -> None:
    """Perfect unlearning: were it among the references, it would seem better known than they."""
    random, gaps = np.random.default_rng(7), []
    for _ in range(40):
        forget, test = -random.exponential(size=(3, 60)), -random.exponential(size=(3, 60))
        found = rmia_beside_retraining(forget[0], test[0], forget, test)
        assert found.retrained_auc is not None
        gaps.append(found.auc - found.retrained_auc)
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / np.sqrt(len(gaps))


@pytest.mark.parametrize("sizes", [(129, 360), (360, 129)])
def test_rmia_accuracy_is_near_50_where_nothing_differs_whatever_the_sizes(sizes: tuple[int, int]) -> None:
    """A little above, as its threshold is the best on these samples; 27 to 75 if each sample counted alike."""
    random = np.random.default_rng(5)

    def accuracy() -> float:
        forget, test = (-random.exponential(size=size) for size in sizes)
        references = (-random.exponential(size=(2, size)) for size in sizes)
        return rmia(forget, test, *references).accuracy

    found = [accuracy() for _ in range(100)]
    assert min(found) >= 50 and max(found) < 60
    assert np.mean(found) < 55


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("pooled", [True, False])
def test_ulira_of_gaussians_is_as_good_as_the_theorem_says(distance: float, pooled: bool) -> None:
    """Of two unit Gaussians at distance d the best attack is right in Phi(d / 2), with an AUC of Phi(d / sqrt 2)."""
    random = np.random.default_rng(1)
    places = random.normal(scale=5, size=400)  # each sample has a margin of its own
    unlearned, retrained = (random.normal(places + shift, size=(64, 400)) for shift in (distance, 0.0))
    found = ulira(unlearned, retrained, pooled)
    assert found.accuracy == pytest.approx(100 * norm.cdf(distance / 2), abs=1.5)
    assert found.auc == pytest.approx(100 * norm.cdf(distance / math.sqrt(2)), abs=1.5)


def test_ulira_finds_a_difference_of_spread_where_means_agree() -> None:
    random = np.random.default_rng(2)
    found = ulira(random.normal(scale=0.2, size=(20, 300)), random.normal(size=(20, 300)))
    assert found.accuracy > 75


def test_ulira_of_three_models_is_unbiased_where_nothing_differs() -> None:
    random = np.random.default_rng(3)
    found = ulira(random.normal(size=(3, 5000)), random.normal(size=(3, 5000)))
    assert found.accuracy == pytest.approx(50, abs=1.5)


def test_ulira_of_few_models_pools_their_variance() -> None:
    """Of three models a sample's own variance is next to noise."""
    random = np.random.default_rng(4)
    unlearned, retrained = random.normal(2.0, 1.0, (3, 4000)), random.normal(0.0, 1.0, (3, 4000))
    pooled, own = (ulira(unlearned, retrained, choice).accuracy for choice in (True, False))
    assert pooled > own + 3
    assert ulira(unlearned, retrained).accuracy == pooled


def test_ulira_names_the_variance_it_took_and_the_models() -> None:
    made = [RANDOM.normal(size=(n, 10)) for n in (4, 4, 64, 64)]
    few, many = ulira(made[0], made[1]), ulira(made[2], made[3])
    assert "one variance" in few.attack and few.models == 4
    assert "a variance for each sample" in many.attack and many.models == 64


def test_ulira_refuses_too_few_models_and_unequal_numbers() -> None:
    for counts in ((2, 2), (4, 5)):
        with pytest.raises(UserError, match=f"found {counts[0]} unlearned and {counts[1]} retrained"):
            ulira(RANDOM.normal(size=(counts[0], 6)), RANDOM.normal(size=(counts[1], 6)))


def test_ulira_refuses_models_that_are_copies() -> None:
    with pytest.raises(UserError, match="seed"):
        ulira(np.ones((4, 5)), RANDOM.normal(size=(4, 5)))


def test_a_model_that_diverged_is_refused() -> None:
    with pytest.raises(UserError, match="diverged"):
        rmia_scores(np.array([np.nan]), np.zeros((2, 1)))


def test_models_asked_about_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        ulira(np.zeros((4, 5)), np.zeros((4, 6)))
