"""Measures: what was learnt and what was forgotten, read off what a run logged.

Pure functions, each with its words and which way is better. They make a run's result at its end,
and again whenever it is read, so that a measure reaches runs older than itself.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetting.streams import resolved_order

RECOVERY_ITERATIONS = 100
Metrics = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Logged:
    """What measures are read off. metrics: name -> (steps (K,), values (K,)); config: the run's
    settings; past_fakes: the matrix, a row a pair of `discriminator` and `generator` (steps) with
    `accuracy` and `auc`."""

    metrics: Metrics
    config: Mapping[str, Any]
    past_fakes: Sequence[Mapping[str, float]] = ()

    @property
    def tasks(self) -> int:
        return sum(name.startswith("accuracy/task_") for name in self.metrics)

    @property
    def order(self) -> list[int]:
        """The tasks as they come."""
        asked = self.config.get("stream", {}).get("order")
        return resolved_order(asked, self.tasks, self.config.get("seed", 0))


@dataclass(frozen=True)
class Measure:
    """A number of a run. better: "higher", "lower" or None where neither is. subject: what figures
    and tables show together. needs: the metric it is read off. of: the number, None where it does
    not apply."""

    name: str
    words: str
    better: str | None
    subject: str
    needs: str
    of: Callable[[Logged], float | None]


TASKS, TRANSFER, TASK_PROBE = "tasks", "transfer", "task probe"
OPPONENTS, REMEMBERED, LAYER = "opponents", "remembered", "final layer"
PROBE, DISTANCE, QUALITY, PAST_FAKES = "probe", "distance", "quality", "past fakes"
MEASURES: list[Measure] = []  # those of every run; a cycle's and a distance's are made for a run


def known(metrics: Metrics, config: Mapping[str, Any]) -> list[Measure]:
    """All measures that a run with these metrics and settings may have."""
    # With one head for all tasks the labels change their meaning, and what falls is not forgotten.
    of_fakes, omits = meets_fakes(config), config.get("stream", {}).get("omit")
    clear = (of_fakes and not omits) or config.get("head") == "per_task"
    cycles = range(config["cycles"]) if clear else ()
    kinds = ("accuracy", "auc") if of_fakes else ("accuracy",)
    found = [*MEASURES, *(m for cycle in cycles for kind in kinds for m in _transfer(cycle, kind))]
    found += OF_OPPONENTS if of_fakes and not omits else []
    # Of features, which no label's change forces; a generator that is omitted has no turn.
    found += [_representation(cycle) for cycle in range(0 if omits else config.get("cycles", 0))]
    found += [m for metric in sorted(metrics) for m in _quality(metric)]
    return [measure for measure in found if measure.needs in metrics]


def meets_fakes(config: Mapping[str, Any]) -> bool:
    """Whether a run's tasks are recorded generators."""
    return config.get("stream", {}).get("name") == "fakes"


def of_run(logged: Logged) -> dict[str, float]:
    """Every measure that applies to a run, by name."""
    found = {m.name: m.of(logged) for m in known(logged.metrics, logged.config)}
    return {name: value for name, value in found.items() if value is not None}


def _measure(words: str, better: str | None, subject: str, needs: str) -> Callable:
    """Makes the function below a measure of its name."""

    def add(of: Callable[[Logged], float | None]) -> Callable[[Logged], float | None]:
        MEASURES.append(Measure(of.__name__, words, better, subject, needs, of))
        return of

    return add


# ------------------------------------------------------------------ one task after another

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


def _starts(logged: Logged) -> range:
    """The updates done before each task, as often as it comes; the study evaluates after the first
    and after the last update of every one."""
    per_task = logged.config["iterations_per_task"]
    return range(0, logged.config["cycles"] * logged.tasks * per_task, per_task)


@functools.lru_cache(maxsize=1)  # of the run at hand: three measures share them
def _cycle_means(logged: Logged) -> list[float]:
    """Mean accuracy on the current task over each cycle's iterations. A task's last accuracy is on
    all test images, the others are on the evaluation's share of them."""
    curve, length = logged.metrics[CURRENT], logged.config["iterations_per_task"]
    means = [mean_over_iterations(*curve, s + 1, s + length) for s in _starts(logged)]
    cycles = np.split(np.array(means), logged.config["cycles"])
    return [float(np.mean(cycle)) for cycle in cycles]


@_measure("mean accuracy, first cycle", "higher", TASKS, CURRENT)
def first_cycle(logged: Logged) -> float:
    return _cycle_means(logged)[0]


@_measure("mean accuracy, last cycle", "higher", TASKS, CURRENT)
def last_cycle(logged: Logged) -> float:
    return _cycle_means(logged)[-1]


@_measure("last cycle minus first", "higher", TASKS, CURRENT)
def cycle_gain(logged: Logged) -> float | None:
    means = _cycle_means(logged)
    return means[-1] - means[0] if len(means) > 1 else None


@_measure("recovery: first 100 iterations", "higher", TASKS, CURRENT)
def recovery(logged: Logged) -> float | None:
    """Mean accuracy over a task's first 100 iterations, over all tasks but the first."""
    curve = logged.metrics[CURRENT]
    reach = min(logged.config["iterations_per_task"], RECOVERY_ITERATIONS)
    climbs = [mean_over_iterations(*curve, s + 1, s + reach) for s in _starts(logged)[1:]]
    return float(np.mean(climbs)) if climbs else None


@_measure("fall at a switch", "lower", TASKS, CURRENT)
def switch_fall(logged: Logged) -> float | None:
    """Accuracy after a task's last update, minus accuracy on the next task after its first update.
    With a shared head this fall is forced, since the labels change their meaning."""
    steps, accuracy = logged.metrics[CURRENT]
    after = dict(zip(steps.tolist(), accuracy.tolist(), strict=True))
    falls = [after[start] - after[start + 1] for start in _starts(logged)[1:]]
    return float(np.mean(falls)) if falls else None


@_measure("linear probe at the end", "higher", TASKS, TASK_END)
def probe_end(logged: Logged) -> float:
    return float(logged.metrics[TASK_END][1][-1])


@_measure("linear probe, last cycle minus first", "higher", TASKS, TASK_END)
def probe_gain(logged: Logged) -> float | None:
    if logged.config["cycles"] < 2:
        return None
    return probe_last_cycle(logged) - probe_first_cycle(logged)


@_measure("linear probe, first cycle", "higher", TASK_PROBE, TASK_END)
def probe_first_cycle(logged: Logged) -> float:
    return float(logged.metrics[TASK_END][1][: logged.tasks].mean())


@_measure("linear probe, last cycle", "higher", TASK_PROBE, TASK_END)
def probe_last_cycle(logged: Logged) -> float:
    return float(logged.metrics[TASK_END][1][-logged.tasks :].mean())


# ---- of the continual-learning literature, meaningful where no label changes its meaning ----


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


def _transfer(cycle: int, kind: str) -> list[Measure]:
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


# ---- of a discriminator and the recorded generators that it met ----

OF_OPPONENTS: list[Measure] = []


def _of_opponents(words: str, better: str | None, needs: str = "auc/task_0") -> Callable:
    def add(of: Callable[[Logged], float | None]) -> Callable[[Logged], float | None]:
        OF_OPPONENTS.append(Measure(of.__name__, words, better, OPPONENTS, needs, of))
        return of

    return add


def _past_at_the_end(logged: Logged, kind: str) -> float:
    """Mean over all generators but the one at hand, the last."""
    return float(np.mean([logged.metrics[f"{kind}/task_{j}"][1][-1] for j in logged.order[:-1]]))


@_of_opponents("AUC on past generators", "higher")
def past_auc(logged: Logged) -> float:
    return _past_at_the_end(logged, "auc")


@_of_opponents("accuracy on past generators", "higher")
def past_accuracy(logged: Logged) -> float:
    return _past_at_the_end(logged, "accuracy")


@_of_opponents("past generators, linear probe", "higher", "probe/task_0")
def past_probe(logged: Logged) -> float:
    """What a head of its own would still tell: what falls less than `past_accuracy` is lost from
    the head, and not from the features."""
    return _past_at_the_end(logged, "probe")


@_of_opponents("real images called real", None)
def real_rate(logged: Logged) -> float:
    return float(logged.metrics["rate/real"][1][-1])


@_of_opponents("past fakes called fake", None)
def past_fakes_rate(logged: Logged) -> float:
    """With `real_rate` it tells a threshold that moved from a memory lost."""
    return 2 * past_accuracy(logged) - real_rate(logged)


@_of_opponents("worst accuracy since met", "higher")
def min_acc(logged: Logged) -> float:
    """min-ACC of De Lange et al. 2023 (arXiv 2205.13452): the lowest accuracy that a
    past task had at any evaluation after its first turn, mean over past tasks."""
    lowest = []
    for turn, task in enumerate(logged.order[:-1], 1):
        steps, values = logged.metrics[f"accuracy/task_{task}"]
        lowest.append(values[steps > turn * logged.config["iterations_per_task"]].min())
    return float(np.mean(lowest))


@_of_opponents("worst-case accuracy", "higher")
def wc_acc(logged: Logged) -> float:
    """WC-ACC of the same paper: accuracy on the task at hand counts as one of the T tasks, min-ACC
    as the others."""
    now = logged.metrics[f"accuracy/task_{logged.order[-1]}"][1][-1]
    return float(now / logged.tasks + (1 - 1 / logged.tasks) * min_acc(logged))


@_of_opponents("updates to relearn", "lower", "relearning/task_0")
def relearning(logged: Logged) -> float:
    return _past_at_the_end(logged, "relearning")


def _of_twins(logged: Logged) -> None:
    """Not of one run: see experiments/show/memory.py."""


MEMORY = Measure(
    "memory", "memory: AUC, met minus never met", "higher", REMEMBERED, "auc/task_0", _of_twins
)
SHARE = Measure(
    "memory_share", "memory, share of joint's", "higher", REMEMBERED, "auc/task_0", _of_twins
)
SAVINGS = Measure(
    "savings", "updates saved in relearning", "higher", REMEMBERED, "relearning/task_0", _of_twins
)
OF_OPPONENTS += [MEMORY, SHARE, SAVINGS]

# ------------------------------------------------------------------ the vector that the heads read

FINAL_LAYER = "probe/final_layer"


@_measure("final layer's probe at the end", "higher", LAYER, FINAL_LAYER)
def final_layer_end(logged: Logged) -> float:
    return float(logged.metrics[FINAL_LAYER][1][-1])


@_measure("taught: final layer, above untrained", "higher", LAYER, FINAL_LAYER)
def taught(logged: Logged) -> float | None:
    """Mean over the probes of a run minus that of the untrained net; None where it was planted."""
    if logged.config.get("plant_updates"):
        return None
    _, values = logged.metrics[FINAL_LAYER]
    return float(values[1:].mean() - values[0]) if len(values) > 1 else None


def _of_planted(name: str, words: str) -> Measure:
    """Of a planted run and its twin, and not of one run: see experiments/show/planted.py."""
    measure = Measure(name, words, "higher", LAYER, FINAL_LAYER, lambda logged: None)
    MEASURES.append(measure)
    return measure


def _representation(cycle: int) -> Measure:
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


TAUGHT = next(measure for measure in MEASURES if measure.name == "taught")
KEPT = _of_planted("kept", "kept: final layer, planted minus not")
HALF_LIFE = _of_planted("kept_half_life", "half-life of what was planted, updates")

# ------------------------------------------------------------------ while a GAN trains

BEST_BLOCK = "probe/best"


@_measure("linear probe, untrained", None, PROBE, BEST_BLOCK)
def probe_untrained(logged: Logged) -> float:
    return float(logged.metrics[BEST_BLOCK][1][0])


@_measure("linear probe at its peak", "higher", PROBE, BEST_BLOCK)
def probe_peak(logged: Logged) -> float:
    return float(logged.metrics[BEST_BLOCK][1].max())


@_measure("linear probe at the end", "higher", PROBE, BEST_BLOCK)
def probe_final(logged: Logged) -> float:
    return float(logged.metrics[BEST_BLOCK][1][-1])


@_measure("linear probe, peak minus end", "lower", PROBE, BEST_BLOCK)
def probe_peak_minus_final(logged: Logged) -> float:
    """Of noisy test accuracies, so never negative: compare it between arms, not with zero."""
    _, best = logged.metrics[BEST_BLOCK]
    return float(best.max() - best[-1])


def falls_from_peak(curves: np.ndarray) -> np.ndarray:
    """(n,) accuracy at the peak minus at the end, for curves (n, K) of two seeds or more.

    The peak is that of the other seeds' mean: a run's own maximum is above its end by chance alone.
    """
    curves = curves[:, 1:]  # the untrained net is no peak to fall from
    others = (curves.sum(0) - curves) / (len(curves) - 1)
    return np.take_along_axis(curves, others.argmax(1)[:, None], 1)[:, 0] - curves[:, -1]


# Of an arm's runs together: of takes their curves (n, K) of the metric, and gives (n,).
PROBE_FALL = Measure(
    *("probe_fall", "linear probe, fall from its peak", "lower", PROBE, BEST_BLOCK),
    falls_from_peak,
)


def is_distance(metric: str) -> bool:
    """Whether a metric is a Fréchet distance: Inception's, fid, or that of fd_<extractor>."""
    return metric == "fid" or metric.startswith("fd_")


def _quality(metric: str) -> list[Measure]:
    def last(logged: Logged) -> float:
        return float(logged.metrics[metric][1][-1])

    def best(logged: Logged) -> float:
        """Of the trained generators."""
        values = logged.metrics[metric][1]
        return float((values[1:] if len(values) > 1 else values).min())

    if is_distance(metric):
        return [
            Measure(metric, f"{metric} at the end", "lower", DISTANCE, metric, last),
            Measure(f"{metric}_best", f"{metric} at its best", "lower", QUALITY, metric, best),
        ]
    better = {"kid": "lower", "inception_score": "higher"}.get(metric)
    return [Measure(metric, f"{metric} at the end", better, QUALITY, metric, last)] * bool(better)


# ---- the last discriminator and the fakes of past generators, but the untrained one's ----


@functools.lru_cache(maxsize=1)  # of the run at hand: six measures share it
def _matrix(logged: Logged) -> tuple[dict, list[int], int]:
    """(discriminator, generator) -> row; the steps of past generators; the last step."""
    of = {(row["discriminator"], row["generator"]): row for row in logged.past_fakes}
    *before, last = sorted({row["discriminator"] for row in logged.past_fakes}) or [0]
    return of, [step for step in before if step > 0], last


def _past_fakes(name: str, words: str) -> list[Measure]:
    """name: accuracy or auc."""

    def now(logged: Logged) -> float | None:
        of, past, last = _matrix(logged)
        return float(np.mean([of[last, s][name] for s in past])) if past else None

    def drop(logged: Logged) -> float | None:
        """From the moment they were current. That moment's accuracy is low where a generator is
        good, so a negative drop is no memory."""
        of, past, last = _matrix(logged)
        drops = [of[s, s][name] - of[last, s][name] for s in past]
        return float(np.mean(drops)) if past else None

    def forgotten(logged: Logged) -> float | None:
        """From the best that a discriminator from then to the last but one did on them, as
        Chaudhry et al. 2018 (arXiv 1801.10112) define it for tasks."""
        of, past, last = _matrix(logged)
        falls = [max(of[t, s][name] for t in past if t >= s) - of[last, s][name] for s in past]
        return float(np.mean(falls)) if past else None

    since = "its drop since"
    rest = (PAST_FAKES, f"past_fakes/{name}")
    return [
        Measure(f"past_fakes_{name}", words, "higher", *rest, now),
        Measure(f"past_fakes_{name}_drop", f"{since} they were current", None, *rest, drop),
        Measure(f"past_fakes_{name}_forgetting", f"{since} its best", "lower", *rest, forgotten),
    ]


MEASURES += _past_fakes("accuracy", "accuracy on past fakes")
MEASURES += _past_fakes("auc", "area under the ROC curve")
