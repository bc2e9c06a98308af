"""The claims of the plans, and what the runs come to.

A claim is about the runs that its plan makes, in whichever preset, of whichever images. In runs of
other settings the same claims are another family, one for each way to depart from the plan: what
somebody tries beside changes no p value of what was planned.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.run.identity import as_text, identity
from experiments.run.stored import StoredRun
from experiments.run.study import Study, studies
from experiments.show.arms import in_order
from experiments.show.compare import FEWEST_UNITS, by_learner, folders_of, measures_of
from experiments.show.groups import Group, shared_of
from experiments.show.intervals import Interval, by_unit, holm, mean_interval
from experiments.sweeps.claims import EQUIVALENT, Claim, shipped
from experiments.sweeps.kept import claims
from forgetting.measures import FALLS, Measure

# They follow from the images or the machine.
NO_DEPARTURE = ("device", "precision", "dataset.", "stream.recording")


class Judged(NamedTuple):
    """A claim, looked at in a group. difference: above zero where what it says of a difference
    holds ("not above" says that there is none above zero), within the smallest effect of interest
    where it says that two are equivalent; p: Holm's, over all claims of the family that its plans
    declare, on equal data, preset and precision; departs: the settings that the runs have, and the
    plan's have not, as a text; runs: of all its terms."""

    group: Group
    claim: Claim
    measure: Measure
    difference: Interval
    p: float
    departs: str = ""
    runs: tuple[StoredRun, ...] = ()

    @property
    def by_its_interval(self) -> bool:
        """Whether it is confirmed whatever p: two were to be equal, and the interval says so."""
        return self.claim.expected == EQUIVALENT and self.verdict == "confirmed"

    @property
    def verdict(self) -> str:
        """Whether the result is for the claim; undecided; or equivalent, where it is undecided and
        the interval holds nothing as large as the smallest effect of interest."""
        equivalent = self.difference.within(self.claim.smallest)
        differs = self.p < 0.05 and not self.difference.contains_zero
        if self.claim.expected == EQUIVALENT:
            return "confirmed" if equivalent else "against" if differs else "undecided"
        if not differs:
            return "equivalent" if equivalent else "undecided"
        expected = not self.claim.expected.startswith("not ")
        return "confirmed" if (self.difference.mean > 0) == expected else "against"


def judged(found: Sequence[Group]) -> list[Judged]:
    """The claims of the plans, wherever the groups' runs say something of them. found:
    all groups, of both studies, since a family may be of both. A family's claims are in the order
    in which they were declared."""
    declared = _declared(found)
    looked_at: dict[tuple, Judged] = {}
    for claim in declared:
        of_study = [group for group in found if group.runs[0].study == claim.study]
        for groups in _places(of_study, claim):
            for of in _looked_at(claim, groups):
                # An arm that does not use some setting stands in the group of each of its values.
                of_key = (id(claim), of.measure.name, *sorted(map(id, of.runs)))
                # A grid of settings, one seed each, decides nothing of the project's claims.
                bare = of.departs and of.difference.n < FEWEST_UNITS
                if of_key not in looked_at and not (bare and claim in shipped(claim.study)):
                    looked_at[of_key] = of
    order = {id(group): i for i, group in enumerate(found)}
    by_group = sorted(looked_at.values(), key=lambda of: order[id(of.group)])
    families = list(dict.fromkeys(of.claim.family for of in by_group))
    place = {id(claim): i for i, claim in enumerate(declared)}
    by_group.sort(key=lambda of: (families.index(of.claim.family), place[id(of.claim)]))
    return _corrected(by_group, declared)


def not_judged(found: Sequence[Group], judged: Sequence[Judged]) -> list[str]:
    """What is to be said of the claims of users' plans that no runs in these groups tell of."""
    lines = []
    here = dict.fromkeys(group.runs[0].study for group in found)
    for claim in _declared(found):
        study = claim.study
        if study not in here or claim in shipped(study) or claim in [of.claim for of in judged]:
            continue
        there = {run.arm for group in found if group.runs[0].study == study for run in group.runs}
        wanted = " and ".join(dict.fromkeys(term.arm for term in claim.terms))
        lines.append(
            f"the claim {claim.words!r} is not judged: no runs of its settings have "
            f"{claim.measure} of {wanted}; there are {', '.join(in_order(study, there))}"
        )
    return lines


def _declared(found: Sequence[Group]) -> list[Claim]:
    """Of the project's plans, and of those that are kept beside any of the runs."""
    folders = folders_of(run for group in found for run in group.runs)
    return [of for study in studies() for of in claims(study, folders) if of.study == study]


def _corrected(looked_at: Sequence[Judged], declared: Sequence[Claim]) -> list[Judged]:
    """With Holm's p values. What no run tells of yet counts as well: it was declared."""
    families: dict[tuple, list[int]] = {}
    for i, of in enumerate(looked_at):
        run = of.group.runs[0]
        key = (of.claim.family, run.data, run.preset, run.config["precision"], of.departs)
        families.setdefault(key, []).append(i)
    result = list(looked_at)
    for (family, *_), members in families.items():
        rows = Counter(id(looked_at[i].claim) for i in members)
        lacking = sum(1 for c in declared if c.family == family and id(c) not in rows)
        # Seeds that do not differ at all, or one alone, are no evidence; their claim counts.
        p = [looked_at[i].difference.p for i in members]
        p = [1.0 if np.isnan(value) else value for value in p] + [1.0] * lacking
        for i, corrected in zip(members, holm(p), strict=False):
            alone = looked_at[i].difference.n < FEWEST_UNITS
            result[i] = looked_at[i]._replace(p=float("nan") if alone else corrected)
    return result


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
    measures = [*measures_of(run for group in groups for run in group.runs), *FALLS]
    for measure in measures:
        if claim.measure not in (measure.name, measure.subject):
            continue
        terms = [group.of_arm(term.arm) for group, term in zip(groups, claim.terms, strict=True)]
        learners = [by_learner(runs, measure.name) for runs in terms]
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
        runs = tuple(run for of_term in terms for run in of_term)
        departs = ", ".join(sorted({text for run in runs for text in _departs(claim, run)}))
        yield Judged(groups[0], claim, measure, apart, float("nan"), departs, runs)


def _departs(claim: Claim, run: StoredRun) -> Iterator[str]:
    """The settings in which a run is none of those that the claim's plan makes in its preset."""
    study = studies()[run.study]
    varied = {key for term in claim.terms for key in term.settings}
    planned = _as_planned(study, run, claim.settings)
    for key, value in shared_of(run).items():
        left_out = key not in study.settings or key in varied or key.startswith(NO_DEPARTURE)
        in_turn = (key, str(value)) in claim.grid
        if not (left_out or in_turn or value == planned.get(key)):
            yield f"{key}={value}"


def _as_planned(study: Study, run: StoredRun, settings: Mapping[str, Any]) -> dict[str, Any]:
    chosen = study.chosen_by(run.preset, settings)
    return identity(study, {**chosen, **settings, study.arm: run.identity[study.arm]})


def negative(interval: Interval) -> Interval:
    mean, low, high = (0.0 - x for x in (interval.mean, interval.high, interval.low))  # no -0.0
    return interval._replace(mean=mean, low=low, high=high)
