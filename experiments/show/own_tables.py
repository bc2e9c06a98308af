"""Tables of our own: the measures by arm, their differences, and the claims."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of, in_order, is_of_user
from experiments.show.compare import (
    by_learner,
    claimed_pairs,
    comparisons,
    difference,
    measures_of,
)
from experiments.show.grids import without_grids
from experiments.show.groups import Group, groups
from experiments.show.intervals import Interval, by_unit, mean_interval
from experiments.show.memory import Remembered, remembered
from experiments.show.shipped import is_shipped
from experiments.show.texts import frame, shown, shown_difference, units, where
from experiments.show.verdicts import Judged, judged, not_judged
from experiments.sweeps.claims import shipped
from forgetting.measures import LAYER, OPPONENTS, PAST_FAKES, REMEMBERED, TASKS, TRANSFER

STUDIES = ("sequential_tasks", "gan_probe")
OF_TASKS = (TASKS, TRANSFER, OPPONENTS, REMEMBERED, LAYER)
SMALLEST = "smallest effect of interest"


def measures(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Each arm's mean over seeds and differences paired by seed, with 95 % t intervals."""
    return _by_arm(groups(runs, "sequential_tasks"), "sequential_tasks", OF_TASKS)


def of_past_fakes(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """What the last discriminator knows of the fakes of earlier generators, by model."""
    return _by_arm(groups(runs, "gan_probe"), "gan_probe", (PAST_FAKES,), "+")


def _by_arm(
    found: Sequence[Group], study: str, subjects: Sequence[str], sign: str = ""
) -> pd.DataFrame:
    rows = []
    pairs = claimed_pairs(study, [run for group in found for run in group.runs])
    for group in found:
        for measure in measures_of(group.runs, *subjects):
            row = where(group) | {"measure": measure.words}
            for arm in arms_of(group):
                values = by_unit(by_learner(group.of_arm(arm), measure.name))
                row[arm] = shown(mean_interval(values), sign) if values else ""
            for a, b in pairs:
                row[f"{a} - {b}"] = shown_difference(difference(group, a, b, measure.name))
            rows.append(row)
    arms = in_order(study, (arm for group in found for arm in group.arms()))
    columns = ["data", "preset", "settings", "measure", *arms]
    return frame(rows, columns + [f"{a} - {b}" for a, b in pairs])


def memory(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """By arm, AUC on the generators that a run met and that its twins never did, and the
    difference: of all but the last at the end, by the turns since a generator's own in the last
    cycle, and of each at the end."""
    found = remembered(runs)
    of_run, rows = {id(of.run): of for of in found}, []
    for group in groups([of.run for of in found], "sequential_tasks"):
        for arm in arms_of(group):
            of_arm = [of_run[id(run)] for run in group.of_arm(arm)]
            rows += [where(group) | {"arm": arm} | cells for cells in _of_memory(of_arm)]
    columns = ["data", "preset", "settings", "arm", "recordings", "generators", "AUC, met"]
    return frame(rows, [*columns, "AUC, never met", "memory", "share of joint's", "updates saved"])


def _of_memory(found: Sequence[Remembered]) -> list[dict[str, str]]:
    """The rows of an arm."""

    def over(values: Iterable[float | None]) -> Interval | None:
        """Over recordings, of a value a run."""
        learners = {
            (of.run.unit, of.run.seed): value
            for of, value in zip(found, values, strict=True)
            if value is not None
        }
        return mean_interval(by_unit(learners)) if learners else None

    rows, of_runs = [], [_aucs(of) for of in found]
    for name in dict.fromkeys(name for aucs in of_runs for name in aucs):
        pairs = [aucs.get(name, (None, None)) for aucs in of_runs]
        seen, unseen = (over(side) for side in zip(*pairs, strict=True))
        apart = over(None if a is None else a - b for a, b in pairs)
        rows.append(
            {
                "recordings": str(apart.n),
                "generators": name,
                "AUC, met": f"{seen.mean:.3f}",
                "AUC, never met": f"{unseen.mean:.3f}",
                "memory": shown_difference(apart),
            }
        )
    share, savings = over(of.share for of in found), [of.savings for of in found]
    saved = None if None in savings else over(savings)
    rows[0]["share of joint's"] = shown(share) if share else ""
    rows[0]["updates saved"] = shown(saved, "+") if saved else ""
    return rows


def _aucs(of: Remembered) -> dict[str, tuple[float, float]]:
    """(AUC of the run, of its twins) by the name of a row."""
    ends = np.stack([of.seen[:, -1], of.unseen[:, -1]], axis=1).tolist()
    rows = {"all but the last, at the end": tuple(np.mean(ends, axis=0).tolist())}
    for lag, seen, unseen in of.by_lag():
        turns = f"{lag} turn{'s'[: lag - 1]} after their own"
        rows[turns if lag else "those at hand"] = (seen, unseen)
    numbers = zip(of.generators, ends, strict=True)
    return rows | {f"number {number}, at the end": tuple(end) for number, end in numbers}


def differences(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Every measure of every arm minus the baseline's, paired by seed, and of values of a setting
    likewise; the methods of users' files first, then the user's own runs."""
    rows = []
    by_study = [groups(runs, study) for study in STUDIES]
    every = [group for found in by_study for group in found]
    looked_at = {
        (id(of.group), *map(of.group.named, of.claim.pair or ()), of.measure.name): of
        for of in judged(every)
    }
    shipped = {id(group): all(map(is_shipped, group.runs)) for group in every}
    found = [of for those in by_study for of in comparisons(those)]
    for of in sorted(found, key=lambda of: (not is_of_user(of.minuend), shipped[id(of.group)])):
        claimed = looked_at.get((id(of.group), of.minuend, of.subtrahend, of.measure.name))
        rows.append(
            where(of.group)
            | {
                "settings": of.differs,
                "compared": f"{of.minuend} - {of.subtrahend}",
                "measure": of.measure.name,
                "in words": of.measure.words,
                "better": of.measure.better or "",
                "difference": shown_difference(of.difference),
                "over": units(of.difference.n, of.group.runs[0]),
                "p": _p(of.difference.p),
                "p, Holm": _p(claimed.p) if claimed and not claimed.by_its_interval else "",
                "family": claimed.claim.family if claimed else "",
            }
        )
    columns = ["data", "preset", "settings", "compared", "measure", "in words", "better"]
    return frame(rows, [*columns, "difference", "over", "p", "p, Holm", "family"])


def claims(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """The plans' claims, each a mean over units, above zero where what it speaks of is there."""
    found = [group for study in STUDIES for group in groups(runs, study)]
    looked_at, shown_apart = judged(found), {id(run) for run in without_grids(runs)}
    for line in not_judged(found, looked_at):
        print(f"warning: {line}", file=sys.stderr)
    rows = [
        {
            "claim": of.claim.words.format(measure=of.measure.name) + _texts(of),
            "verdict": of.verdict + _late(of),
            "difference": shown(of.difference, "+"),
            "over": units(of.difference.n, of.group.runs[0]),
            "p, Holm": "" if of.by_its_interval else _p(of.p),
            SMALLEST: "" if of.claim.smallest is None else f"{of.claim.smallest:g}",
            "family": of.claim.family,
        }
        | where(of.group)
        | ({} if of.group.differs else {"settings": of.departs})
        for of in looked_at
        # Of the project's claims every cell of a grid would be a family of rows.
        if of.claim not in shipped(of.claim.study) or shown_apart.issuperset(map(id, of.runs))
    ]
    # A claim on other data is the same claim again, and stands with that data's.
    data = {(row["data"], row["preset"]): i for i, row in reversed(list(enumerate(rows)))}
    rows.sort(key=lambda row: data[row["data"], row["preset"]])
    columns = ["data", "preset", "claim", "verdict", "difference", "over", "p, Holm", SMALLEST]
    return frame(rows, [*columns, "family", "settings"])


def _late(of: Judged) -> str:
    """That a claim was written down when some of its runs had ended."""
    when, ends = of.claim.declared, [run.ended for run in of.runs]
    n = sum(datetime.fromisoformat(end) < when for end in ends if end) if when else 0
    return f", declared after {n} run{'s'[: n - 1]}" if n else ""


def _texts(of: Judged) -> str:
    """Which texts of users' files were judged, where the claim leaves it open."""
    named = dict.fromkeys((term.arm, of.group.named(term.arm)) for term in of.claim.terms)
    found = [there for arm, there in named if there != arm]
    return f" ({', '.join(found)})" if found else ""


def _p(p: float) -> str:
    return "" if np.isnan(p) else "<0.001" if p < 0.0005 else f"{p:.3f}"
