"""The measures of stored runs as a Markdown table, with intervals.

python experiments/tables.py [--runs DIR ...]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.intervals import Interval, mean_interval, paired_interval
from experiments.results import PROJECT, Group, groups, stored_runs
from experiments.sequential_figures import ARMS, MEASURES, TRANSFER_MEASURES

DIFFERENCES = (("rotation", "vanilla"), ("rotation", "augment"))


def measures_table(group: Group) -> list[list[str]]:
    """A header and a row a measure: each arm's mean over seeds, and differences paired by seed.

    In brackets the 95 % t interval; a difference whose interval contains zero is undecided.
    """
    arms = [arm for arm in ARMS if arm in group.arms()]
    pairs = [pair for pair in DIFFERENCES if set(pair) <= set(arms)]
    header = ["measure", *arms, *(f"{a} - {b}" for a, b in pairs)]
    table = [header]
    for measure, words in {**MEASURES, **TRANSFER_MEASURES}.items():
        if measure not in group.runs[0].result:
            continue
        by_seed = {
            arm: {run.seed: run.result[measure] for run in group.of_arm(arm)} for arm in arms
        }
        row = [words.replace("\n", " ")]
        row += [shown(mean_interval(list(by_seed[arm].values())), "") for arm in arms]
        for a, b in pairs:
            difference = paired_interval(by_seed[a], by_seed[b])
            row.append("" if difference is None else shown(difference, "+"))
            if difference is not None and difference.contains_zero:
                row[-1] += " undecided"
        table.append(row)
    return table


def shown(interval: Interval, sign: str) -> str:
    if interval.n < 2:
        return f"{interval.mean:{sign}.3f}"
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the measures of stored runs.")
    parser.add_argument("--runs", action="append", metavar="DIR", help="a folder of Sacred runs")
    folders = parser.parse_args().runs or [PROJECT / "results/runs", PROJECT / "results/reference"]
    for folder in map(Path, folders):
        if not folder.is_dir() and folder.parent != PROJECT / "results":
            sys.exit(f"error: --runs: there is no folder {folder}")
    found = groups(stored_runs(*folders), "sequential_tasks")
    if not found:
        print("no completed run of sequential_tasks")
    for group in found:
        seeds = ", ".join(f"{arm}: seeds {[r.seed for r in group.of_arm(arm)]}" for arm in ARMS)
        print(f"{group.title}; {seeds}\n\n{markdown(measures_table(group))}\n")


if __name__ == "__main__":
    main()
