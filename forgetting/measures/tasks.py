"""One task after another: accuracy on the task at hand, and probes at the tasks' ends."""

import functools
from collections.abc import Sequence

import numpy as np

from forgetting.measures.base import TASK_PROBE, TASKS, Logged, Measure, measure

MEASURES: list[Measure] = []
RECOVERY_ITERATIONS = 100

CURRENT, TASK_END = "accuracy/current", "probe/final"


def mean_over_iterations(steps: np.ndarray, values: np.ndarray, start: int, end: int) -> float:
    """Mean of the curve values(steps) between `start` and `end`, by the trapezoidal rule.

    Evaluations crowd behind a switch, so their plain mean would weigh that stretch too much.
    """
    if start >= end:
        return float(np.interp(start, steps, values))
    inside = steps[(steps > start) & (steps < end)]
    x = np.concatenate([[start], inside, [end]])
    return float(np.trapezoid(np.interp(x, steps, values), x) / (end - start))


def _starts(logged: Logged) -> Sequence[int]:
    """The updates done before each task, as often as it comes. None where not each one's first
    update was evaluated (`eval_after_switch`): a curve between two tasks' ends says nothing of the
    climb."""
    per_task = logged.config["iterations_per_task"]
    starts = range(0, logged.config["cycles"] * logged.tasks * per_task, per_task)
    return starts if np.isin(np.add(starts, 1), logged.metrics[CURRENT][0]).all() else ()


@functools.lru_cache(maxsize=1)  # of the run at hand: three measures share them
def _cycle_means(logged: Logged) -> list[float]:
    """Mean accuracy on the current task over each cycle's iterations. A task's last accuracy is on
    all test images, the others are on the evaluation's share of them."""
    curve, length = logged.metrics[CURRENT], logged.config["iterations_per_task"]
    means = [mean_over_iterations(*curve, s + 1, s + length) for s in _starts(logged)]
    cycles = np.split(np.array(means), logged.config["cycles"]) if means else ()
    return [float(np.mean(cycle)) for cycle in cycles]


@measure(MEASURES, "mean accuracy, first cycle", "higher", TASKS, CURRENT)
def first_cycle(logged: Logged) -> float | None:
    return next(iter(_cycle_means(logged)), None)


@measure(MEASURES, "mean accuracy, last cycle", "higher", TASKS, CURRENT)
def last_cycle(logged: Logged) -> float | None:
    return next(reversed(_cycle_means(logged)), None)


@measure(MEASURES, "last cycle minus first", "higher", TASKS, CURRENT)
def cycle_gain(logged: Logged) -> float | None:
    means = _cycle_means(logged)
    return means[-1] - means[0] if len(means) > 1 else None


@measure(MEASURES, "recovery: first 100 iterations", "higher", TASKS, CURRENT)
def recovery(logged: Logged) -> float | None:
    """Mean accuracy over a task's first 100 iterations, over all tasks but the first."""
    curve = logged.metrics[CURRENT]
    reach = min(logged.config["iterations_per_task"], RECOVERY_ITERATIONS)
    climbs = [mean_over_iterations(*curve, s + 1, s + reach) for s in _starts(logged)[1:]]
    return float(np.mean(climbs)) if climbs else None


@measure(MEASURES, "fall at a switch", "lower", TASKS, CURRENT)
def switch_fall(logged: Logged) -> float | None:
    """Accuracy after a task's last update, minus accuracy on the next task after its first update.
    With a shared head this fall is forced, since the labels change their meaning."""
    steps, accuracy = logged.metrics[CURRENT]
    after = dict(zip(steps.tolist(), accuracy.tolist(), strict=True))
    falls = [after[start] - after[start + 1] for start in _starts(logged)[1:]]
    return float(np.mean(falls)) if falls else None


@measure(MEASURES, "linear probe at the end", "higher", TASKS, TASK_END)
def probe_end(logged: Logged) -> float:
    return float(logged.metrics[TASK_END][1][-1])


@measure(MEASURES, "linear probe, last cycle minus first", "higher", TASKS, TASK_END)
def probe_gain(logged: Logged) -> float | None:
    if logged.config["cycles"] < 2:
        return None
    return probe_last_cycle(logged) - probe_first_cycle(logged)


@measure(MEASURES, "linear probe, first cycle", "higher", TASK_PROBE, TASK_END)
def probe_first_cycle(logged: Logged) -> float:
    return float(logged.metrics[TASK_END][1][: logged.tasks].mean())


@measure(MEASURES, "linear probe, last cycle", "higher", TASK_PROBE, TASK_END)
def probe_last_cycle(logged: Logged) -> float:
    return float(logged.metrics[TASK_END][1][-logged.tasks :].mean())
