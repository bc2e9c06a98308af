"""One paired comparison: of any two arms, or of two values of a setting, in either study.

One seed gives both sides the same start and the same images, so seeds pair.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.run.identity import FACTS, as_text
from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of, baseline, in_order
from experiments.show.groups import Group
from experiments.show.intervals import (
    Interval,
    Learners,
    by_unit,
    holm,
    mean_interval,
    paired_interval,
)
from experiments.sweeps.claims import EQUIVALENT, Claim, shipped
from experiments.sweeps.kept import claims
from forgetting.measures import PROBE_FALL, Measure, is_distance, known

# They follow from the images or the machine, and are no question that a study asks.
NOT_COMPARED = (*FACTS, "dataset.name", "device", "precision")
FEWEST_UNITS = 2  # that two values of a setting must share


class Comparison(NamedTuple):
    """minuend - subtrahend in a measure, of the group's runs; differs: what tells the group from
    others; seeds pair in `difference`."""

    group: Group
    differs: str
    minuend: str
    subtrahend: str
    measure: Measure
    difference: Interval


class Judged(NamedTuple):
    """A claim, looked at in a group. difference: above zero where the claim's words hold, within
    the smallest effect of interest where they say that two are equivalent; p: Holm's, over the
    family's claims on equal data, preset and precision."""

    group: Group
    claim: Claim
    measure: Measure
    difference: Interval
    p: float

    @property
    def verdict(self) -> str:
        """Whether the result is for the claim; undecided; or equivalent, where it is undecided and
        the interval holds nothing as large as the smallest effect of interest."""
        smallest, (_, low, high, *_) = self.claim.smallest, self.difference
        equivalent = smallest is not None and -smallest <= low and high <= smallest
        differs = self.p < 0.05 and not self.difference.contains_zero
        if self.claim.expected == EQUIVALENT:
            return "confirmed" if equivalent else "against" if differs else "undecided"
        if not differs:
            return "equivalent" if equivalent else "undecided"
        expected = not self.claim.expected.startswith("not ")
        return "confirmed" if (self.difference.mean > 0) == expected else "against"


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
    at random: the seed, or the recording whose opponents were met."""
    if measure == PROBE_FALL.name:
        runs = with_metric(runs, PROBE_FALL.needs)
        if len(runs) < 2:
            return {}
        falls = PROBE_FALL.of(np.stack([run.metrics[PROBE_FALL.needs][1] for run in runs]))
        return {(run.unit, run.seed): float(f) for run, f in zip(runs, falls, strict=True)}
    return {(run.unit, run.seed): run.result[measure] for run in runs if measure in run.result}


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
    return list(dict.fromkeys(c.pair for c in claims(study, _folders(runs)) if c.pair))


def _folders(runs: Iterable[StoredRun]) -> set[Path]:
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
    """(setting, the groups that differ in it alone, in the order of its values)."""
    shared = [(group, group.readable_settings()) for group in found]
    keys = dict.fromkeys(key for _, settings in shared for key in settings)
    for key in (key for key in keys if key not in NOT_COMPARED):
        by_rest: dict[str, list[tuple]] = {}
        for group, settings in shared:
            if key in settings:
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


# ------------------------------------------------------------------ claims


def judged(found: Sequence[Group]) -> list[Judged]:
    """The claims of the plans, wherever the groups' runs say something of them. found:
    all groups, of both studies, since a family may be of both."""
    looked_at = []
    for study in dict.fromkeys(group.runs[0].study for group in found):
        of_study = [group for group in found if group.runs[0].study == study]
        folders = _folders(run for group in of_study for run in group.runs)
        for claim in claims(study, folders):
            for groups in _places(of_study, claim):
                looked_at += _looked_at(claim, groups)
    order = {id(group): i for i, group in enumerate(found)}
    looked_at.sort(key=lambda of: order[id(of.group)])
    families: dict[tuple, list[int]] = {}
    for i, (group, claim, *_) in enumerate(looked_at):
        run = group.runs[0]
        of = (claim.family, run.data, run.preset, run.config["precision"])
        families.setdefault(of, []).append(i)
    for members in families.values():
        # Seeds that do not differ at all are no evidence, but their claim was looked at, too.
        differences = [looked_at[i].difference for i in members]
        p = [1.0 if d.n > 1 and np.isnan(d.p) else d.p for d in differences]
        for i, corrected in zip(members, holm(p), strict=True):
            looked_at[i] = looked_at[i]._replace(p=corrected)
    return looked_at


def not_judged(found: Sequence[Group], judged: Sequence[Judged]) -> list[str]:
    """What is to be said of the claims of users' plans that no runs in these groups tell of."""
    lines = []
    for study in dict.fromkeys(group.runs[0].study for group in found):
        runs = [run for group in found if group.runs[0].study == study for run in group.runs]
        for claim in claims(study, _folders(runs)):
            if claim not in shipped(study) and claim not in [of.claim for of in judged]:
                there = in_order(study, {run.arm for run in runs})
                wanted = " and ".join(dict.fromkeys(term.arm for term in claim.terms))
                lines.append(
                    f"the claim {claim.words!r} is not judged: no runs of its settings have "
                    f"{claim.measure} of {wanted}; there are {', '.join(there)}"
                )
    return lines


def _places(found: Sequence[Group], claim: Claim) -> Iterator[list[Group]]:
    """A group for each term of the claim, wherever they differ in the terms' settings alone."""
    varied = {key for term in claim.terms for key in term.settings}
    by_rest: dict[str, list[tuple[Group, dict]]] = {}
    for group in found:
        shared = group.readable_settings()
        # What no run computes from, as the label of its data, tells no run from others.
        if all(shared.get(key, value) == value for key, value in claim.settings.items()):
            rest = as_text({k: v for k, v in shared.items() if k not in varied})
            by_rest.setdefault(rest, []).append((group, shared))
    for alike in by_rest.values():
        groups = [
            next(
                (
                    group
                    for group, shared in alike
                    if all(shared.get(key) == value for key, value in term.settings.items())
                ),
                None,
            )
            for term in claim.terms
        ]
        if all(groups):
            yield groups


def _looked_at(claim: Claim, groups: Sequence[Group]) -> Iterator[Judged]:
    measures = [*measures_of(run for group in groups for run in group.runs), PROBE_FALL]
    for measure in measures:
        if claim.measure not in (measure.name, measure.subject):
            continue
        learners = [
            by_learner(group.of_arm(term.arm), measure.name)
            for group, term in zip(groups, claim.terms, strict=True)
        ]
        shared = sorted(set.intersection(*(set(of) for of in learners)))
        if not shared:
            continue
        weights = [term.weight for term in claim.terms]
        sums = {
            key: sum(w * of[key] for w, of in zip(weights, learners, strict=True)) for key in shared
        }
        apart = mean_interval(by_unit(sums))
        if claim.expected.endswith("below"):
            apart = negative(apart)
        yield Judged(groups[0], claim, measure, apart, float("nan"))


def negative(interval: Interval) -> Interval:
    mean, low, high = (0.0 - x for x in (interval.mean, interval.high, interval.low))  # no -0.0
    return interval._replace(mean=mean, low=low, high=high)
