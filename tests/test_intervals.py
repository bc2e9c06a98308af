import math

import numpy as np
import pytest
from scipy import stats

from experiments.show.intervals import band, by_unit, holm, mean_interval, paired_interval

VALUES = [0.71, 0.74, 0.70, 0.78, 0.73]


def test_the_interval_is_scipys():
    got = mean_interval(VALUES)
    reference = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((reference.low, reference.high))
    assert got.n == 5 and not got.contains_zero
    assert got.p == pytest.approx(stats.ttest_1samp(VALUES, 0).pvalue)


def test_seeds_pair():
    a = {(seed, seed): value for seed, value in enumerate(VALUES)}
    b = {key: value - 0.01 * (key[0] + 1) for key, value in a.items() if key[0]} | {(9, 9): 0.0}
    got = paired_interval(a, b)
    shared = sorted(a.keys() & b.keys())
    reference = stats.ttest_rel([a[s] for s in shared], [b[s] for s in shared])
    interval = reference.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.n == 4 and got.p == pytest.approx(reference.pvalue)
    assert paired_interval({(0, 0): 1.0}, {(1, 1): 1.0}) is None


def test_the_learners_of_a_recording_count_as_their_mean():
    a = {("one", 1): 0.9, ("one", 2): 0.5, ("two", 3): 0.6, ("three", 4): 0.8}
    b = {("one", 1): 0.4, ("one", 2): 0.2, ("two", 3): 0.5, ("three", 5): 0.1}
    got = paired_interval(a, b)
    assert got == pytest.approx(mean_interval([(0.5 + 0.3) / 2, 0.1])) and got.n == 2
    assert by_unit(a) == pytest.approx([0.7, 0.6, 0.8])


def test_one_seed_has_no_interval_and_decides_nothing():
    got = mean_interval([0.5])
    assert got.mean == 0.5 and math.isnan(got.low) and got.contains_zero
    assert mean_interval([-1.0, 1.1]).contains_zero


def test_a_band_is_an_interval_at_every_point():
    curves = np.random.default_rng(0).normal(size=(4, 3))
    mean, low, high = band(curves)
    for k in range(3):
        expected = mean_interval(curves[:, k])
        assert (mean[k], low[k], high[k]) == pytest.approx(expected[:3])


def test_equal_values_are_no_certainty():
    assert math.isnan(mean_interval([0.2, 0.2]).p)
    assert math.isnan(mean_interval([0.4 - 0.3, 0.3 - 0.2]).p)
    assert mean_interval([0.2, 0.2]).contains_zero and not mean_interval([0.2, 0.2]).within(0.3)
    assert mean_interval([0.0, 0.0]).within(0.3) and not mean_interval([0.0]).within(0.3)
    assert mean_interval([0.1, 0.11]).within(0.3) and not mean_interval([0.1, 0.11]).within(0.1)


def test_holms_correction():
    # The worked example of Wikipedia's "Holm-Bonferroni method": at 0.05 the first and the fourth
    # of these are rejected.
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_unknown = holm([0.01, math.nan, 0.04])
    assert with_unknown[::2] == pytest.approx([0.02, 0.04]) and math.isnan(with_unknown[1])
    # By its definition: the claim of rank k is rejected while each p of rank i <= k has
    # p <= alpha / (m - i).
    p = np.random.default_rng(1).uniform(0, 0.2, 7)
    for alpha in (0.01, 0.05, 0.2):
        ordered = np.sort(p)
        fails = [i for i in range(7) if ordered[i] > alpha / (7 - i)]
        rejected = set(ordered[: fails[0] if fails else 7])
        assert {x for x, a in zip(p, holm(p), strict=True) if a <= alpha} == rejected
