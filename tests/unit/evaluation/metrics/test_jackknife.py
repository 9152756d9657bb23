"""Groups that are left out: even, shuffled, of whole prompts; and the interval that they give, by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from scipy import stats

from erase.evaluation.metrics.jackknife import GROUPS, group_of, jackknife


@pytest.mark.parametrize("n", [1, 9, 10, 57, 240])
def test_groups_are_even_and_the_same_each_time(n: int) -> None:
    of = group_of(n)
    counts = of.bincount()
    assert len(of) == n and len(counts) == min(n, GROUPS)
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(of, group_of(n))


@pytest.mark.parametrize("period", [2, 5, 6, 8, 10, 40])
def test_groups_do_not_line_up_with_what_a_prompt_set_repeats(period: int) -> None:
    """Rows of a vocabulary repeat their attributes; taken in turn, a group would hold one style alone."""
    of, kind = group_of(240), torch.arange(240) % period
    within = [Counter(kind[of == group].tolist()).most_common(1)[0][1] for group in range(GROUPS)]
    assert max(within) < 24  # of 24 images
    assert min(len(set(kind[of == group].tolist())) for group in range(GROUPS)) > min(period, 24) / 2


def test_images_of_a_prompt_are_in_one_group() -> None:
    prompts = [f"p{i % 30}" for i in range(120)]
    of = group_of(120, prompts)
    assert {len({int(of[i]) for i in range(120) if prompts[i] == p}) for p in prompts} == {1}
    assert sorted(of.bincount().tolist()) == [12] * 10
    assert len(group_of(120, [i % 3 for i in range(120)]).unique()) == 3
    assert torch.equal(group_of(7, list("abcdefg")), group_of(7))


def test_the_interval_by_hand() -> None:
    found = jackknife(5.0, lambda group: float(group), 100)
    spread = math.sqrt(9 / 10 * sum((g - 4.5) ** 2 for g in range(10)))
    reach = stats.t.ppf(0.975, 9) * spread
    assert (found.low, found.high) == pytest.approx((5 - reach, 5 + reach))
    assert (found.n, found.method) == (100, "jackknife over 10 groups")
    assert jackknife(5.0, float, 100, lowest=0.0).low == 0
    assert jackknife(5.0, float, 3, groups=1, lowest=0.0).as_dict() | {"n": 3} == {
        "estimate": 5.0, "low": 0.0, "high": None, "n": 3, "level": 0.95, "method": "none: one prompt"
    }  # fmt: skip
