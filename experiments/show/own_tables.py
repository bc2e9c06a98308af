"""Tables of our own: the measures by arm, their differences, and the claims."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of, in_order
from experiments.show.compare import (
    by_learner,
    claimed_pairs,
    comparisons,
    difference,
    judged,
    measures_of,
)
from experiments.show.groups import Group, groups
from experiments.show.intervals import by_unit, mean_interval
from experiments.show.texts import frame, shown, shown_difference, where
from forgetting.measures import PAST_FAKES, TASKS, TRANSFER

STUDIES = ("sequential_tasks", "gan_probe")


def measures(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Each arm's mean over seeds and differences paired by seed, with 95 % t intervals."""
    return _by_arm(groups(runs, "sequential_tasks"), "sequential_tasks", (TASKS, TRANSFER))


def of_past_fakes(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """What the last discriminator knows of the fakes of earlier generators, by model."""
    return _by_arm(groups(runs, "gan_probe"), "gan_probe", (PAST_FAKES,), "+")


def _by_arm(
    found: Sequence[Group], study: str, subjects: Sequence[str], sign: str = ""
) -> pd.DataFrame:
    rows, pairs = [], claimed_pairs(study)
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


def differences(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Every measure of every arm minus the baseline's, paired by seed, and of values of a setting
    likewise."""
    rows = []
    by_study = [groups(runs, study) for study in STUDIES]
    looked_at = {
        (id(of.group), of.claim.arm, of.claim.baseline, of.measure.name): of
        for of in judged([group for found in by_study for group in found])
    }
    for found in by_study:
        for group, differs, a, b, measure, apart in comparisons(found):
            claimed = looked_at.get((id(group), a, b, measure.name))
            rows.append(
                where(group)
                | {
                    "settings": differs,
                    "compared": f"{a} - {b}",
                    "measure": measure.name,
                    "in words": measure.words,
                    "better": measure.better or "",
                    "difference": shown_difference(apart),
                    "seeds": str(apart.n),
                    "p": _p(apart.p),
                    "p, Holm": _p(claimed.p) if claimed else "",
                    "family": claimed.claim.family if claimed else "",
                }
            )
    columns = ["data", "preset", "settings", "compared", "measure", "in words", "better"]
    return frame(rows, [*columns, "difference", "seeds", "p", "p, Holm", "family"])


def claims(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """The plans' claims, each a mean over seeds that is above zero where its words hold."""
    rows = [
        where(of.group)
        | {
            "the paper's claim": of.claim.words.format(measure=of.measure.name),
            "difference": shown(of.difference, "+"),
            "seeds": str(of.difference.n),
            "p, Holm": _p(of.p),
            "verdict": of.verdict,
        }
        for of in judged([group for study in STUDIES for group in groups(runs, study)])
    ]
    columns = ["data", "preset", "settings", "the paper's claim", "difference", "seeds"]
    return frame(rows, [*columns, "p, Holm", "verdict"])


def _p(p: float) -> str:
    return "" if np.isnan(p) else f"{p:.3f}"
