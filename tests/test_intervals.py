import math

import numpy as np
import pytest
from scipy import stats

from experiments.intervals import band, mean_interval, paired_interval

VALUES = [0.71, 0.74, 0.70, 0.78, 0.73]


def test_the_interval_is_scipys():
    got = mean_interval(VALUES)
    reference = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((reference.low, reference.high))
    assert got.n == 5 and not got.contains_zero


def test_seeds_pair():
    a = dict(enumerate(VALUES))
    b = {seed: value - 0.01 * (seed + 1) for seed, value in a.items() if seed} | {9: 0.0}
    got = paired_interval(a, b)
    shared = sorted(a.keys() & b.keys())
    reference = stats.ttest_rel([a[s] for s in shared], [b[s] for s in shared])
    interval = reference.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.n == 4
    assert paired_interval({0: 1.0}, {1: 1.0}) is None


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
