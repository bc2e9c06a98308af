"""A discriminator and the recorded generators that it met."""

import numpy as np

from forgetting.measures.base import OPPONENTS, REMEMBERED, Logged, Measure, measure

MEASURES: list[Measure] = []
AUC = "auc/task_0"


def _past_at_the_end(logged: Logged, kind: str) -> float:
    """Mean over all generators but the one at hand, the last."""
    return float(np.mean([logged.metrics[f"{kind}/task_{j}"][1][-1] for j in logged.order[:-1]]))


@measure(MEASURES, "AUC on past generators", "higher", OPPONENTS, AUC)
def past_auc(logged: Logged) -> float:
    return _past_at_the_end(logged, "auc")


@measure(MEASURES, "accuracy on past generators", "higher", OPPONENTS, AUC)
def past_accuracy(logged: Logged) -> float:
    return _past_at_the_end(logged, "accuracy")


@measure(MEASURES, "past generators, linear probe", "higher", OPPONENTS, "probe/task_0")
def past_probe(logged: Logged) -> float:
    """What a head of its own would still tell: what falls less than `past_accuracy` is lost from
    the head, and not from the features."""
    return _past_at_the_end(logged, "probe")


@measure(MEASURES, "real images called real", None, OPPONENTS, AUC)
def real_rate(logged: Logged) -> float:
    return float(logged.metrics["rate/real"][1][-1])


@measure(MEASURES, "past fakes called fake", None, OPPONENTS, AUC)
def past_fakes_rate(logged: Logged) -> float:
    """With `real_rate` it tells a threshold that moved from a memory lost."""
    return 2 * past_accuracy(logged) - real_rate(logged)


@measure(MEASURES, "worst accuracy since met", "higher", OPPONENTS, AUC)
def min_acc(logged: Logged) -> float:
    """min-ACC of De Lange et al. 2023 (arXiv 2205.13452): the lowest accuracy that a
    past task had at any evaluation after its first turn, mean over past tasks."""
    lowest = []
    for turn, task in enumerate(logged.order[:-1], 1):
        steps, values = logged.metrics[f"accuracy/task_{task}"]
        lowest.append(values[steps > turn * logged.config["iterations_per_task"]].min())
    return float(np.mean(lowest))


@measure(MEASURES, "worst-case accuracy", "higher", OPPONENTS, AUC)
def wc_acc(logged: Logged) -> float:
    """WC-ACC of the same paper: accuracy on the task at hand counts as one of the T tasks, min-ACC
    as the others."""
    now = logged.metrics[f"accuracy/task_{logged.order[-1]}"][1][-1]
    return float(now / logged.tasks + (1 - 1 / logged.tasks) * min_acc(logged))


@measure(MEASURES, "updates to relearn", "lower", OPPONENTS, "relearning/task_0")
def relearning(logged: Logged) -> float:
    return _past_at_the_end(logged, "relearning")


def _of_twins(logged: Logged) -> None:
    """Not of one run: see experiments/show/memory.py."""


MEMORY = Measure("memory", "memory: AUC, met minus never met", "higher", REMEMBERED, AUC, _of_twins)
SHARE = Measure("memory_share", "memory, share of joint's", "higher", REMEMBERED, AUC, _of_twins)
SAVINGS = Measure(
    "savings", "updates saved in relearning", "higher", REMEMBERED, "relearning/task_0", _of_twins
)
MEASURES += [MEMORY, SHARE, SAVINGS]
