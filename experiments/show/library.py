"""Measures of stored runs as a table, and paired comparisons on any such table, for notebooks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from experiments.run.stored import stored_runs
from experiments.show.compare import measures_of
from experiments.show.groups import groups
from experiments.show.intervals import Interval, holm, paired_interval
from experiments.show.memory import with_memory
from experiments.show.planted import with_kept

RUNS_ALIKE = ["study", "data", "preset", "settings"]
ALPHA, MOST_UNITS = 0.05, 10_000


def load_measures(*folders: str | Path) -> pd.DataFrame:
    """One row a measure of a completed run: study, data, preset, settings, arm, unit, seed, metric,
    value.

    settings: what tells the runs from others of the same data and preset, "" where nothing does.
    unit: what was drawn at random, the recording of opponents or else the seed. metric: the
    measure's name, as in the table `differences`. What takes a twin to be told (memory, what is
    kept) is among them; omission twins are no rows of their own.
    Raises FileNotFoundError for a folder that is not there.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    runs, rows = with_kept(with_memory(stored_runs(*folders))), []
    for study in sorted({run.study for run in runs}):
        for group in groups(runs, study):
            for measure in measures_of(group.runs):
                of_group = {"study": study, "settings": group.differs, "metric": measure.name}
                rows += [
                    {**of_group, "data": run.data, "preset": run.preset, "arm": run.arm}
                    | {"unit": run.unit, "seed": run.seed, "value": run.result[measure.name]}
                    for run in group.runs
                    if measure.name in run.result
                ]
    return pd.DataFrame(rows, columns=[*RUNS_ALIKE, "arm", "unit", "seed", "metric", "value"])


def compare(
    table: pd.DataFrame, baseline: str, smallest: float | None = None, power: float = 0.8
) -> pd.DataFrame:
    """Each arm minus the baseline, paired, in every metric of `table`: one row a comparison.

    table: a row a run and metric with columns arm, seed, metric, value, as `load_measures` gives
    them; with a column step as well, as `load_runs` gives them, the last step's value counts.
    Columns study, data, preset, settings keep apart what is no one experiment; `unit` is what was
    drawn at random where that is not the seed (the mean over a unit's seeds counts once).

    Returns those columns, metric, arm, baseline, difference, low, high (95 % t interval), n (units
    that both have), p (t test, two-sided), p_holm (Holm 1979, over all rows returned: hand over
    what one question is about, no more), verdict, units_needed. verdict: "above" or "below" where
    p_holm is under 0.05; "equivalent" where it is not, and the interval lies within +-smallest, the
    smallest effect of interest; else "undecided". units_needed: so many pairs find `smallest` with
    that power, if pairs scatter as these do; NaN without `smallest` or with one pair.

    Raises ValueError for a missing column, a baseline that is no arm, and two runs where one is
    expected.
    """
    if lacking := [name for name in ("arm", "seed", "metric", "value") if name not in table]:
        raise ValueError(f"compare: the table needs a column {lacking[0]}")
    if baseline not in set(table["arm"]):
        arms = ", ".join(sorted(map(str, set(table["arm"]))))
        raise ValueError(f"compare: there is no arm {baseline}; there are {arms}")
    if "step" in table:
        table = _last_values(table)
    alike = [name for name in RUNS_ALIKE if name in table]
    rows = []
    for of, some in table.groupby([*alike, "metric"], observed=True, sort=False, dropna=False):
        for arm, apart in _differences(some, baseline):
            row = dict(zip([*alike, "metric"], of, strict=True)) | {"arm": arm}
            rows.append((row | {"baseline": baseline}, apart))
    # Pairs that do not differ at all are no evidence, and were looked at as well.
    adjusted = holm([1.0 if a.n > 1 and np.isnan(a.p) else a.p for _, a in rows])
    columns = [*alike, "metric", "arm", "baseline", "difference", "low", "high", "n"]
    return pd.DataFrame(
        [
            row
            | {"difference": apart.mean, "low": apart.low, "high": apart.high, "n": apart.n}
            | {"p": apart.p, "p_holm": p, "verdict": _verdict(apart, p, smallest)}
            | {"units_needed": units_needed(apart, smallest, power)}
            for (row, apart), p in zip(rows, adjusted, strict=True)
        ],
        columns=[*columns, "p", "p_holm", "verdict", "units_needed"],
    )


def _last_values(table: pd.DataFrame) -> pd.DataFrame:
    """A row a run and metric. Runs are told apart by `run` where the table says it."""
    of = [name for name in (*RUNS_ALIKE, "run", "arm", "unit", "seed", "metric") if name in table]
    last = table.groupby(of, observed=True, sort=False, dropna=False)["step"].idxmax()
    return table.loc[last]


def _differences(some: pd.DataFrame, baseline: str) -> Iterator[tuple[str, Interval]]:
    learners: dict[str, dict] = {}
    units = some["unit"] if "unit" in some else some["seed"]
    rows = zip(some["arm"], units, some["seed"], some["value"], some["metric"], strict=True)
    for arm, unit, seed, value, metric in rows:
        of_arm = learners.setdefault(arm, {})
        if (unit, seed) in of_arm:
            raise ValueError(
                f"compare: {metric} of {arm} has two runs of seed {seed}: choose those that are "
                f"one experiment, or give what tells them apart in a column settings"
            )
        of_arm[unit, seed] = float(value)
    for arm in sorted(learners.keys() - {baseline}):
        apart = paired_interval(learners[arm], learners.get(baseline, {}))
        if apart is not None:
            yield arm, apart


def _verdict(apart: Interval, p: float, smallest: float | None) -> str:
    if p < ALPHA and not apart.contains_zero:
        return "above" if apart.mean > 0 else "below"
    return "equivalent" if apart.within(smallest) else "undecided"


def units_needed(apart: Interval, smallest: float | None, power: float = 0.8) -> float:
    """The fewest pairs with which a two-sided t test at 0.05 finds a mean difference of `smallest`
    with that power, if pairs scatter as those of `apart` do; NaN where that is not known, infinity
    beyond 10,000.

    Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", chapter 2, by the
    noncentral t distribution.
    """
    if smallest is None or apart.n < 2 or not np.isfinite(apart.low):
        return float("nan")
    half_width = (apart.high - apart.low) / 2
    deviation = half_width * apart.n**0.5 / stats.t.ppf(0.975, apart.n - 1)
    if deviation == 0:
        return 2.0
    n = np.arange(2, MOST_UNITS + 1)
    shift = smallest / deviation * np.sqrt(n)
    found = stats.nct.sf(stats.t.ppf(1 - ALPHA / 2, n - 1), n - 1, shift) >= power
    return float(n[found.argmax()]) if found.any() else float("inf")
