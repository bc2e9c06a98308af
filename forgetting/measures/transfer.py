"""Forgetting and transfer as the literature on continual learning has them.

Meaningful where no label changes its meaning.
"""

from collections.abc import Callable

import numpy as np

from forgetting.measures.base import LAYER, TRANSFER, Logged, Measure


def accuracy_matrix(logged: Logged, cycle: int, kind: str = "accuracy") -> np.ndarray:
    """R (tasks, tasks) of one cycle: R[i, j] is accuracy (or kind: auc) on task j at the end of
    task i, both in the order in which the tasks come."""
    tasks = logged.tasks
    ends = (cycle * tasks + np.arange(1, tasks + 1)) * logged.config["iterations_per_task"]
    columns = []
    for task in logged.order:
        steps, values = logged.metrics[f"{kind}/task_{task}"]
        columns.append(values[np.searchsorted(steps, ends)])
    return np.stack(columns, axis=1)


def average_accuracy(r: np.ndarray) -> float:
    """Mean of R's last row: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), equation 2."""
    return float(r[-1].mean())


def forgetting(r: np.ndarray) -> float:
    """Mean over tasks j < T of max over l < T of R[l, j], minus R[T, j].

    Chaudhry et al. 2018 (arXiv 1801.10112), Section 3.1: how far below its best each task ended.
    """
    return float((r[:-1, :-1].max(0) - r[-1, :-1]).mean())


def backward_transfer(r: np.ndarray) -> float:
    """Mean over tasks i < T of R[T, i] - R[i, i]: Lopez-Paz & Ranzato 2017, equation 3."""
    return float((r[-1] - np.diag(r))[:-1].mean())


def forward_transfer(r: np.ndarray, untrained: np.ndarray) -> float:
    """Mean over tasks i > 1 of R[i-1, i] - b_i: Lopez-Paz & Ranzato 2017, equation 4.

    untrained: (T,) b, each task's accuracy at the random start of the run.
    """
    return float((np.diag(r, 1) - untrained[1:]).mean())


def learning_accuracy(r: np.ndarray) -> float:
    """Mean of R's diagonal: each task at the end of its own turn (Riemer et al. 2019,
    arXiv 1810.11910). A net that learns nothing has nothing to forget."""
    return float(np.diag(r).mean())


def of_cycle(cycle: int, kind: str) -> list[Measure]:
    """The measures of one cycle (from 0), of accuracy or auc."""
    # Of accuracy they have the literature's names.
    accuracy = kind == "accuracy"
    ending, in_words = ("", "") if accuracy else (f"_{kind}", f" of {kind.upper()}")

    def of(name: str, words: str, better: str, function: Callable[[Logged], float]) -> Measure:
        words = f"{words}{in_words}, cycle {cycle + 1}"
        name = f"{name}/cycle_{cycle + 1}"
        return Measure(name, words, better, TRANSFER, f"{kind}/task_0", function)

    def of_matrix(measure: Callable[[np.ndarray], float]) -> Callable[[Logged], float]:
        return lambda logged: measure(accuracy_matrix(logged, cycle, kind))

    def forward(logged: Logged) -> float:
        start = [logged.metrics[f"{kind}/task_{task}"][1][0] for task in logged.order]
        return forward_transfer(accuracy_matrix(logged, 0, kind), np.array(start))

    mean = ("average_accuracy", "average acc.") if accuracy else ("average_auc", "average")
    found = [
        of(*mean, "higher", of_matrix(average_accuracy)),
        of(f"forgetting{ending}", "forgetting", "lower", of_matrix(forgetting)),
        of(f"backward_transfer{ending}", "backward tr.", "higher", of_matrix(backward_transfer)),
    ]
    if cycle == 0:  # later, every task was trained before
        found.append(of(f"forward_transfer{ending}", "forward tr.", "higher", forward))
    learnt = ("learning_accuracy", "learning acc.") if accuracy else ("learning_auc", "learning")
    return [*found, of(*learnt, "higher", of_matrix(learning_accuracy))]


def representation(cycle: int) -> Measure:
    """Representation forgetting (Davari et al. 2022, arXiv 2203.13381, Section 3): what a linear
    probe tells of a task at the end of its turn, minus at the end of the cycle, mean over tasks but
    the last. Of a class it is the recall of a ten-way probe; of a generator the accuracy on real
    images against its fakes."""

    def of(logged: Logged) -> float | None:
        if logged.tasks < 2:
            return None
        return -backward_transfer(accuracy_matrix(logged, cycle, "probe"))

    name, words = f"representation_forgetting/cycle_{cycle + 1}", "representation forgetting"
    return Measure(name, f"{words}, cycle {cycle + 1}", "lower", LAYER, "probe/task_0", of)
