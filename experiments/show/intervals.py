"""Means over what was drawn at random, and how far to trust them.

That is the seed, or the recording whose opponents were met: the unit.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

Learners = Mapping[tuple[Hashable, int], float]  # (unit, seed) -> a measure


class Interval(NamedTuple):
    """A mean over n units, its 95 % t interval, and the t test's two-sided p value of a mean of
    zero. low, high and p are NaN for one, p also where no two values differ: that is the
    resolution of what was measured, and no certainty."""

    mean: float
    low: float
    high: float
    n: int
    p: float

    @property
    def contains_zero(self) -> bool:
        """True also where it is not known: of one unit, and where no two values differ."""
        return np.isnan(self.p) or not (self.low > 0 or self.high < 0)

    def within(self, smallest: float | None) -> bool:
        """Whether it holds no effect as large as the smallest of interest; where no two values
        differ only if all are zero."""
        known = not np.isnan(self.p) or self.mean == 0
        return smallest is not None and known and -smallest <= self.low and self.high <= smallest

    @property
    def error(self) -> list[list[float]] | None:
        """How far it reaches below and above the mean, as matplotlib's `errorbar` takes it; None of
        one unit."""
        return None if self.n < 2 else [[self.mean - self.low], [self.high - self.mean]]


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % confidence interval by Student's t, for values (n,) of independent units."""
    values = np.asarray(values, float)
    low, high = band(values[:, None])[1:]
    n, mean = len(values), float(values.mean())
    p = float("nan")
    if n > 1:
        error = values.std(ddof=1) / np.sqrt(n)
        if error > 1e-9 * max(1.0, abs(mean)):
            p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Interval(mean, float(low[0]), float(high[0]), n, p)


def by_unit(learners: Learners) -> list[float]:
    """The mean over the learners of each unit."""
    of_units: dict[Hashable, list[float]] = {}
    for (unit, _), value in learners.items():
        of_units.setdefault(unit, []).append(value)
    return [float(np.mean(values)) for values in of_units.values()]


def paired_interval(a: Learners, b: Learners) -> Interval | None:
    """Interval of the mean of a - b over the learners both have (one seed gives both arms the same
    start and images, so they pair), the mean of a unit's first; None where they share none."""
    shared = {key: a[key] - b[key] for key in sorted(a.keys() & b.keys())}
    return mean_interval(by_unit(shared)) if shared else None


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high (K,) of curves (n, K), pointwise as in `mean_interval`."""
    n = len(values)
    mean = values.mean(0)
    if n < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def holm(p: Sequence[float]) -> list[float]:
    """p values (m,) of a family of claims, adjusted so that the chance of even one false claim is
    bounded (Holm 1979, "A simple sequentially rejective multiple test procedure"). NaN stays NaN
    and counts as no claim."""
    p = np.asarray(p, float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = p.copy()
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted.tolist()
