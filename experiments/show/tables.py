"""Every table from stored runs: its name, what a reader must know of it, and of which runs it is.

A table is a DataFrame of texts, one row a measurement; a cell that is not known is empty. Rows of
other data, presets or settings are rows of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show import kept_and_taught
from experiments.show.compare import distance_metrics
from experiments.show.gan import with_past_fakes
from experiments.show.groups import groups
from experiments.show.memory import that_tell
from experiments.show.own_tables import claims, differences, measures, memory, of_past_fakes
from experiments.show.paper_tables import of_table2, table1, table2, table3
from experiments.show.texts import UNCORRECTED


@dataclass(frozen=True)
class Table:
    """`made_by`: a command that makes runs for it; `note`: what a reader must know; `select`: the
    runs it is made of; `make`: their table."""

    made_by: str
    title: str
    note: str
    select: Callable[[Sequence[StoredRun]], list[StoredRun]]
    make: Callable[[Sequence[StoredRun]], pd.DataFrame]


def _of(study: str) -> Callable[[Sequence[StoredRun]], list[StoredRun]]:
    return lambda runs: [run for run in runs if run.study == study]


def _with_distance(runs: Sequence[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if run.study == "gan_probe" and distance_metrics([run])]


def _with_probe(runs: Sequence[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if run.study == "gan_probe" and "probe/best" in run.metrics]


BESIDE = 'The paper\'s values for CIFAR-10 stand beside every data set called "CIFAR-10 (...)".'
TABLES = {
    "table1": Table(
        "python experiments/gan_probe.py with cpu",
        "Table 1: best FID by model and data set",
        "The best over seeds and training. FID is Inception's; a distance on other features is "
        "named after them and does not compare with it. The paper's are the best of three seeds. "
        + BESIDE
        + " Differences at the end of training are means over seeds, with 95 % t intervals, paired "
        "by seed and not corrected for their number; one that contains zero is undecided.",
        _with_distance,
        table1,
    ),
    "table2": Table(
        "python experiments/sweep.py table2 --preset cpu",
        "Table 2: robustness to regularizer, Adam's betas and discriminator steps",
        "Mean and standard deviation over seeds at the end of training. Runs of another scale have "
        "rows of their own. Of four settings or more, the curves and the other tables show the "
        "paper's at most. Of the paper's values, which are FID, one is at hand; its grid has one "
        "learning rate, 0.0002.",
        lambda runs: of_table2(_with_distance(runs)),
        table2,
    ),
    "table3": Table(
        "python experiments/gan_probe.py with cpu",
        "Table 3: linear probe of the discriminator by block",
        "Test accuracy at the end of training, mean over seeds with its 95 % t interval. "
        + BESIDE
        + " The fall from the peak, as in the claims, is not corrected for the number of arms; an "
        "interval that contains zero is undecided.",
        _with_probe,
        table3,
    ),
    "measures": Table(
        "python experiments/sequential_tasks.py with cpu",
        "Sequential tasks: the measures in numbers",
        UNCORRECTED + "Not corrected for looking at several measures.",
        _of("sequential_tasks"),
        measures,
    ),
    "kept_and_taught": Table(
        "python experiments/sweep.py planted --preset cpu",
        "Planted knowledge: kept and taught",
        "The final layer's linear probe, test accuracy. Planted: of the planted net minus the bare "
        "one, before either trains. Kept: the same while they train, mean over the run; of turn "
        "1's: what is kept at the later turns' ends, as a share of that at the first one's; "
        "half-life: the updates until half of it is left, the whole run where more is. Taught: of "
        "the twin that was not planted, minus the untrained net. Planted, at the end: of the "
        "planted net, minus the untrained one. " + UNCORRECTED,
        lambda runs: [run for group in kept_and_taught.planted_of(runs) for run in group.runs],
        kept_and_taught.table,
    ),
    "memory": Table(
        "python experiments/sweep.py opponents --preset cpu",
        "Memory of the generators that were met",
        "Memory: area under the ROC curve (AUC) on a generator's held-out fakes, minus that of a "
        "twin that never met it. In its turns the twin met its neighbour, so that the neighbour "
        "had more turns, and the other generators that the twin omits are missing, too: memory is "
        "what meeting a generator adds over that, and may be below zero. Turns are the last "
        "cycle's. Share: of what joint training reaches above the same twins, a ratio of sums. "
        "Updates saved: those that the twin needs to reach an AUC of 0.9 on it, minus those of "
        "the run to reach it again, within a turn at most; none where most do not. "
        "The fakes are made with batch norm's running statistics, "
        "unlike those in a GAN's training. Means over recordings; in brackets 95 % t intervals, "
        "paired by recording and not corrected for their number; one that contains zero is "
        "undecided.",
        that_tell,
        memory,
    ),
    "past_fakes_measures": Table(
        "python experiments/gan_probe.py with cpu",
        "Past fakes: the measures",
        "Real images against the fakes of earlier generators (but the untrained one's), by the "
        "discriminator at the end. A drop from the moment they were current is negative where a "
        "good generator made that moment hard; the drop from the best since is what was forgotten. "
        + UNCORRECTED,
        lambda runs: [
            run for group in with_past_fakes(groups(runs, "gan_probe")) for run in group.runs
        ],
        of_past_fakes,
    ),
    "differences": Table(
        "python experiments/sequential_tasks.py with cpu",
        "All measures, compared",
        UNCORRECTED + "Every arm with the first of its study, with those that a claim names, and "
        "with the arm it is a variant of; runs that one setting tells apart likewise, where they "
        "share two of them. p is of the t test, of one row by itself; where a row is one of a "
        "family's claims, p by Holm's correction over all of these stands beside it.",
        lambda runs: list(runs),
        differences,
    ),
    "claims": Table(
        "python experiments/sweep.py figure3 --preset cpu",
        "The claims",
        UNCORRECTED + "The paper's, and those that other plans declared before their runs; "
        "where some of these were there, the verdict says so. A "
        "difference is above zero where what a claim speaks of is there: where it says that "
        "something is not above, it is against the claim. p is "
        "of the t test, by Holm's correction over all claims that a family declares, on equal data "
        "and preset; in runs of other settings than its plan's they are a family apart. A "
        "claim is confirmed, or the result against it, below 0.05; an undecided one whose interval "
        "lies within the smallest effect of interest, fixed beforehand, to either side of zero is "
        "called equivalent. A fall from the peak is measured at the step where the other seeds' "
        "mean is highest, so that its seeds are not quite independent; that there is none is "
        "confirmed by an end above that step's, or, where equivalence is claimed, by an interval "
        "within the smallest effect of interest.",
        lambda runs: list(runs),
        claims,
    ),
}
