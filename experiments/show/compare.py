"""One paired comparison: of any two arms, or of two values of a setting, in either study.

One seed gives both sides the same start and the same images, so seeds pair.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.run.identity import FACTS, as_text
from experiments.run.stored import MET, StoredRun
from experiments.run.study import studies
from experiments.show.arms import arms_of, baseline, in_order
from experiments.show.groups import Group
from experiments.show.intervals import Interval, Learners, by_unit, mean_interval, paired_interval
from experiments.sweeps.kept import claims
from forgetting.measures import FALLS, ROUND_ROBIN_AUC, Measure, is_distance, known

# They follow from the images or the machine, and are no question that a study asks; relearning is
# measured on copies.
NOT_COMPARED = (*FACTS, "dataset.name", "precision", "relearning")
FEWEST_UNITS = 2  # that two values of a setting must share
MOST_CURVES = 10  # of a panel


class Comparison(NamedTuple):
    """minuend - subtrahend in a measure, of the group's runs; differs: what tells the group from
    others; seeds pair in `difference`."""

    group: Group
    differs: str
    minuend: str
    subtrahend: str
    measure: Measure
    difference: Interval


# ------------------------------------------------------------------ what runs have


def with_metric(runs: Iterable[StoredRun], metric: str) -> list[StoredRun]:
    return [run for run in runs if metric in run.metrics]


def distance_metrics(runs: Sequence[StoredRun]) -> list[str]:
    """fid and fd_<extractor>, as far as all of the runs have them, in their result if complete."""
    logged = [set(run.result or run.metrics) & set(run.metrics) for run in runs]
    names = set.intersection(*logged) if logged else set()
    return sorted(filter(is_distance, names))


def measures_of(runs: Iterable[StoredRun], *subjects: str) -> list[Measure]:
    """The measures that some of the runs have; subjects: of these alone."""
    found = {m.name: m for run in runs for m in known(run.metrics, run.config)
             if m.name in run.result}  # fmt: skip
    return [m for m in found.values() if not subjects or m.subject in subjects]


def by_learner(runs: Sequence[StoredRun], measure: str) -> Learners:
    """(unit, seed) -> the measure, of the runs of an arm that have it. The unit is what was drawn
    at random: the seed, or the recording whose opponents were met. Of a round robin those runs
    alone that were asked about the same arms as most, whose names stand with the seed: the others'
    mean is of something else."""
    of_arm = next((fall for fall in FALLS if fall.name == measure), None)
    if of_arm:
        runs = with_metric(runs, of_arm.needs)
        if len(runs) < 2:
            return {}
        curves = np.stack([run.metrics[of_arm.needs][1] for run in runs])
        falls = of_arm.of(curves, bool(runs[0].config.get("plant_updates")))
        return {(run.unit, run.seed): float(f) for run, f in zip(runs, falls, strict=True)}
    of = [run for run in runs if measure in run.result]
    if measure == ROUND_ROBIN_AUC:
        met = {(run.unit, run.seed): tuple(run.info.get(MET, ())) for run in of}
        count = Counter(met.values())
        most = max(count, key=lambda arms: (count[arms], len(arms)), default=None)
        of = [run for run in of if met[run.unit, run.seed] == most]
        return {(run.unit, (run.seed, *most)): run.result[measure] for run in of}
    return {(run.unit, run.seed): run.result[measure] for run in of}


def asked_about_fewer(group: Group) -> list[StoredRun]:
    """The runs whose round robin met fewer arms than another's of their seed did."""
    met = [(run, run.info[MET]) for run in group.runs if MET in run.info]
    most = {run.seed: max(len(arms) for of, arms in met if of.seed == run.seed) for run, _ in met}
    return [run for run, arms in met if len(arms) < most[run.seed]]


def difference(group: Group, arm: str, other: str | None, measure: str) -> Interval | None:
    """arm - other, paired by learner; other None: of the arm alone. None where there are none."""
    own = by_learner(group.of_arm(arm), measure)
    if other is None:
        return mean_interval(by_unit(own)) if own else None
    return paired_interval(own, by_learner(group.of_arm(other), measure))


# ------------------------------------------------------------------ differences


def pairs(group: Group) -> list[tuple[str, str]]:
    """(arm, the arm it is compared with): each with the study's baseline, those that a claim names,
    and the variants of an arm with the arm itself."""
    study, arms = group.runs[0].study, arms_of(group)
    found = [(arm, baseline(study)) for arm in arms]
    found += [(group.named(a), group.named(b)) for a, b in claimed_pairs(study, group.runs)]
    found += [(arm, other) for arm in arms for other in arms if arm.startswith(f"{other}(")]
    return [(a, b) for a, b in dict.fromkeys(found) if a != b and {a, b} <= set(arms)]


def claimed_pairs(study: str, runs: Iterable[StoredRun]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(c.pair for c in claims(study, folders_of(runs)) if c.pair))


def with_curves(group: Group, arms: Sequence[str]) -> list[str]:
    """Those of the arms whose curves can be told apart in one panel: all, or the baseline's, those
    of claims and the GANs without a method beside."""
    if len(arms) <= MOST_CURVES:
        return list(arms)
    study = group.runs[0].study
    claimed = {group.named(arm) for pair in claimed_pairs(study, group.runs) for arm in pair}
    wanted = claimed | {baseline(study)} | studies()[study].models.keys()
    return [arm for arm in arms if arm in wanted]


def folders_of(runs: Iterable[StoredRun]) -> set[Path]:
    """Where runs are stored; of those in an archive it is the archive."""
    return {Path(os.path.dirname(str(run.folder).rstrip("/"))) for run in runs}


def comparisons(found: Sequence[Group]) -> Iterator[Comparison]:
    """Every measure, of every pair of arms, and of groups that one setting tells apart."""
    for group in found:
        of_group = measures_of(group.runs)
        for arm, other in pairs(group):
            for measure in of_group:
                apart = difference(group, arm, other, measure.name)
                if apart:
                    yield Comparison(group, group.differs, arm, other, measure, apart)
    for key, alike in alike_but_one(found):
        first, *others = alike
        for group in others:
            yield from _of_setting(key, group, first)


def alike_but_one(found: Sequence[Group]) -> Iterator[tuple[str, list[Group]]]:
    """(setting, the groups that differ in it alone, in the order of its values). What planting does
    at all is a measure, `kept`: its lengths are compared with each other."""
    shared = [(group, group.readable_settings()) for group in found]
    keys = dict.fromkeys(key for _, settings in shared for key in settings)
    for key in (key for key in keys if key not in NOT_COMPARED):
        by_rest: dict[str, list[tuple]] = {}
        for group, settings in shared:
            if key in settings and not (key == "plant_updates" and not settings[key]):
                rest = {k: v for k, v in settings.items() if k != key}
                value = settings[key]
                order = (isinstance(value, str), value if isinstance(value, int | float) else 0)
                alike = by_rest.setdefault(as_text(rest), [])
                alike.append((*order, str(value), group))
        for alike in by_rest.values():
            if len(alike) > 1:
                yield key, [group for *_, group in sorted(alike, key=lambda of: of[:3])]


def _of_setting(key: str, group: Group, other: Group) -> Iterator[Comparison]:
    values = [f"{key}={of.readable_settings()[key]}" for of in (group, other)]
    differs = group.differs.replace(values[0], "").replace(", , ", ", ").strip(", ")
    arms = in_order(group.runs[0].study, set(group.arms()) & set(other.arms()))
    for arm in arms:
        runs = [of.of_arm(arm) for of in (group, other)]
        if key not in runs[0][0].identity:
            continue  # the same runs on both sides: the arm does not use the setting
        for measure in measures_of([*runs[0], *runs[1]]):
            apart = paired_interval(*(by_learner(those, measure.name) for those in runs))
            if apart and apart.n >= FEWEST_UNITS:
                names = (f"{arm}, {values[0]}", values[1])
                yield Comparison(group, differs, *names, measure, apart)
