"""Which of the values tried each method gets: python -m experiments.sweeps.tuning DIR

DIR holds the runs of the plan `tune_cures`, and no others.
"""

import re
import sys
from collections.abc import Iterable

import pandas as pd

from experiments.run.study import studies
from experiments.show.arms import baseline
from experiments.show.library import load_measures
from experiments.show.texts import markdown
from forgetting.errors import UserError
from forgetting.methods import parse

STUDY = "sequential_tasks"
PAST, LEARNING = "past_auc", "learning_accuracy/"
MARGIN = 0.02  # that learning accuracy may be below the baseline's


def tuning(measures: pd.DataFrame) -> pd.DataFrame:
    """Per method and value the mean AUC on past generators at the end and the mean learning
    accuracy of the last cycle. Chosen is the best AUC among those that lack no run that others
    have, and whose learning accuracy is no more than 0.02 below the baseline's; where a method has
    none, no value of it.

    measures: as `load_measures` gives them, of runs that differ in arm and seed alone. Returns
    method, value (NaN where it has no weight), past_auc, learning_accuracy, runs, chosen, at_edge:
    whether the value chosen is the smallest or the largest tried, so that more are to be tried.
    Raises UserError where the baseline is missing, and for runs that differ in more.
    """
    of_study = measures[measures["study"] == STUDY]
    cycles = sorted(name for name in set(of_study["metric"]) if name.startswith(LEARNING))
    if not cycles or baseline(STUDY) not in set(of_study["arm"]):
        raise UserError(f"tuning: there is no {baseline(STUDY)} that met recorded generators")
    if len(of_study[["data", "preset", "settings", "unit"]].drop_duplicates()) > 1:
        raise UserError("tuning: the runs differ in more than arm and seed")
    of_runs = of_study.pivot(index=["arm", "seed"], columns="metric", values="value")
    of_arms = of_runs.groupby("arm")[[PAST, cycles[-1]]]
    table = of_arms.mean().set_axis([PAST, "learning_accuracy"], axis=1)
    table["runs"] = of_arms.size()
    table[["method", "value"]] = [_method_and_value(arm, table.index) for arm in table.index]
    plain = table.loc[baseline(STUDY)]
    learns = table["learning_accuracy"] >= plain["learning_accuracy"] - MARGIN
    allowed = table[learns & (table["runs"] == table["runs"].max())]
    table["chosen"] = table.index.isin(allowed.groupby("method")[PAST].idxmax())
    tried = table.groupby("method")["value"]
    at_edge = (table["value"] == tried.transform("min")) | (
        table["value"] == tried.transform("max")
    )
    table["at_edge"] = table["chosen"] & at_edge
    columns = ["method", "value", PAST, "learning_accuracy", "runs", "chosen", "at_edge"]
    return table[columns].sort_values(["method", "value"]).reset_index(drop=True)


def to_be_tried(table: pd.DataFrame) -> list[str]:
    """What a table of `tuning` leaves open, a line a method."""
    lines = []
    for method, of in table.groupby("method"):
        lacking = of[of["runs"] < table["runs"].max()]["value"].dropna().tolist()
        if (of["runs"] < table["runs"].max()).any():
            at = f" at {', '.join(map(str, lacking))}" if lacking else ""
            lines.append(f"{method}: runs are lacking{at}")
        elif of["value"].isna().all():
            continue  # nothing to be chosen
        elif not of["chosen"].any():
            lines.append(
                f"{method}: no value learns well enough; try some nearer to plain training"
            )
        elif of["at_edge"].any():
            best = of[of["chosen"]]["value"].item()
            lines.append(
                f"{method}: {best} is the best, at the edge of what was tried; try beyond it"
            )
    return lines


def _method_and_value(arm: str, arms: Iterable[str]) -> tuple[str, float]:
    """ewc(weight=10.0) -> ("ewc", 10.0). An arm's name does not say what is at its default: ewc has
    that of the setting which other arms of its name say."""
    method, _, own = arm.partition("(")
    pattern = rf"{re.escape(method)}\((\w+)=.*\)"
    said = {match[1] for other in arms if (match := re.fullmatch(pattern, other))}
    if own:
        return method, float(own.rstrip(")").partition("=")[2])
    if not said:
        return method, float("nan")
    known = {**studies()[STUDY].settings, **parse(method).settings}
    (setting,) = said
    return method, float(known.get(f"{method}.{setting}", known.get(setting)).default)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("error: name one folder, that of tune_cures' runs")
    try:
        table = tuning(load_measures(sys.argv[1]))
    except (UserError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(markdown(table.round(4).astype(str).replace("nan", "")), end="")
    for line in to_be_tried(table):
        print(line)


if __name__ == "__main__":
    main()
