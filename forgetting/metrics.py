"""What was learnt and what was forgotten, from accuracies over time and task."""

from collections.abc import Mapping

import numpy as np

RECOVERY_ITERATIONS = 100


def one_vs_all_accuracy(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Balanced accuracy (classes,) of each task "class c against all others", threshold logit 0.

    logits: (N,) of one head for every task, or (N, classes) of a head a task.
    labels: (N,) int class of each image, each class present.
    The mean of the rates of true positives and true negatives: 0.5 is chance.
    """
    says_yes = np.broadcast_to(logits.reshape(len(labels), -1) > 0, (len(labels), classes))
    is_class = labels[:, None] == np.arange(classes)
    true_positive_rate = (says_yes & is_class).sum(0) / is_class.sum(0)
    true_negative_rate = (~says_yes & ~is_class).sum(0) / (~is_class).sum(0)
    return (true_positive_rate + true_negative_rate) / 2


# ---- measures of a run in which one task follows another ----


def mean_over_iterations(steps: np.ndarray, values: np.ndarray, start: int, end: int) -> float:
    """Mean of the curve values(steps) between `start` and `end`, by the trapezoidal rule.

    Evaluations crowd behind a switch, so their plain mean would weigh that stretch too much.
    """
    if start >= end:
        return float(np.interp(start, steps, values))
    inside = steps[(steps > start) & (steps < end)]
    x = np.concatenate([[start], inside, [end]])
    return float(np.trapezoid(np.interp(x, steps, values), x) / (end - start))


def current_task_measures(
    steps: np.ndarray, accuracy: np.ndarray, iterations_per_task: int, tasks: int, cycles: int
) -> dict[str, float]:
    """The measures of Figure 3, from accuracy on the current task after `steps` updates.

    steps must hold the first and the last update of every task, as the study evaluates both.
    first_cycle, last_cycle: mean accuracy over a cycle's iterations. cycle_gain: last minus first.
    recovery: mean accuracy over a task's first 100 iterations, over all tasks but the first.
    switch_fall: accuracy after a task's last update, minus accuracy on the next task after its
    first update. With a shared head this fall is forced, since the labels change their meaning.
    A task's last accuracy is on all test images, the others are on the evaluation's share of them.
    With one cycle there is no cycle_gain.
    """
    curve = dict(zip(steps.tolist(), accuracy.tolist(), strict=True))
    cycle_means, recoveries, falls = [], [], []
    for cycle in range(cycles):
        task_means = []
        for task in range(tasks):
            start = (cycle * tasks + task) * iterations_per_task
            first, last = start + 1, start + iterations_per_task
            task_means.append(mean_over_iterations(steps, accuracy, first, last))
            if start:
                end = min(last, start + RECOVERY_ITERATIONS)
                recoveries.append(mean_over_iterations(steps, accuracy, first, end))
                falls.append(curve[start] - curve[first])
        cycle_means.append(float(np.mean(task_means)))
    measures = {
        "first_cycle": cycle_means[0],
        "last_cycle": cycle_means[-1],
        "recovery": float(np.mean(recoveries)),
        "switch_fall": float(np.mean(falls)),
    }
    if cycles > 1:
        measures["cycle_gain"] = cycle_means[-1] - cycle_means[0]
    return measures


def accuracy_matrix(
    metrics: Mapping[str, tuple[np.ndarray, np.ndarray]],
    iterations_per_task: int,
    tasks: int,
    cycle: int,
) -> np.ndarray:
    """R (tasks, tasks) of one cycle: R[i, j] is accuracy on task j at the end of task i.

    metrics: "accuracy/task_<j>" -> (steps, values).
    """
    ends = (cycle * tasks + np.arange(1, tasks + 1)) * iterations_per_task
    columns = []
    for task in range(tasks):
        steps, values = metrics[f"accuracy/task_{task}"]
        columns.append(values[np.searchsorted(steps, ends)])
    return np.stack(columns, axis=1)


# ---- measures of the continual-learning literature, meaningful where each task has its head ----


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
