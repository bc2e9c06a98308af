"""While a GAN trains: probes, the samples' distance, and the fakes of past generators."""

import functools

import numpy as np

from forgetting.measures.base import (
    DISTANCE,
    LAYER,
    PAST_FAKES,
    PROBE,
    QUALITY,
    Logged,
    Measure,
    measure,
)
from forgetting.measures.final_layer import FINAL_LAYER

MEASURES: list[Measure] = []

BEST_BLOCK = "probe/best"


@measure(MEASURES, "linear probe, untrained", None, PROBE, BEST_BLOCK)
def probe_untrained(logged: Logged) -> float | None:
    """None where the run begins with a planted net."""
    if logged.config.get("plant_updates"):
        return None
    return float(logged.metrics[BEST_BLOCK][1][0])


@measure(MEASURES, "linear probe at its peak", "higher", PROBE, BEST_BLOCK)
def probe_peak(logged: Logged) -> float:
    return float(logged.metrics[BEST_BLOCK][1].max())


@measure(MEASURES, "linear probe at the end", "higher", PROBE, BEST_BLOCK)
def probe_final(logged: Logged) -> float:
    return float(logged.metrics[BEST_BLOCK][1][-1])


@measure(MEASURES, "linear probe, peak minus end", "lower", PROBE, BEST_BLOCK)
def probe_peak_minus_final(logged: Logged) -> float:
    """Of noisy test accuracies, so never negative: compare it between arms, not with zero."""
    _, best = logged.metrics[BEST_BLOCK]
    return float(best.max() - best[-1])


def falls_from_peak(curves: np.ndarray, planted: bool = False) -> np.ndarray:
    """(n,) accuracy at the peak minus at the end, for curves (n, K) of two seeds or more.

    The peak is that of the other seeds' mean: a run's own maximum is above its end by chance alone.
    planted: whether the curves begin with planted nets, which are a peak to fall from; untrained
    ones are none.
    """
    curves = curves if planted else curves[:, 1:]
    others = (curves.sum(0) - curves) / (len(curves) - 1)
    return np.take_along_axis(curves, others.argmax(1)[:, None], 1)[:, 0] - curves[:, -1]


# Of an arm's runs together: of takes their curves (n, K) of the metric and whether they were
# planted, and gives (n,).
FALLS = [
    Measure(name, words, "lower", subject, metric, falls_from_peak)
    for name, words, subject, metric in (
        ("probe_fall", "linear probe, fall from its peak", PROBE, BEST_BLOCK),
        ("final_layer_fall", "final layer's probe, fall from its peak", LAYER, FINAL_LAYER),
    )
]


def is_distance(metric: str) -> bool:
    """Whether a metric is a Fréchet distance: Inception's, fid, or that of fd_<extractor>."""
    return metric == "fid" or metric.startswith("fd_")


def quality(metric: str) -> list[Measure]:
    """Of a metric of the samples; none of another."""

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


@measure(MEASURES, "AUC on past fakes of all runs", "higher", PAST_FAKES, "past_fakes/auc")
def round_robin_auc(logged: Logged) -> float | None:
    """On past generators of all runs of the seed, each run counting alike: on its own past alone, a
    discriminator whose generator is tame looks wise."""
    of_runs: dict[str, list[float]] = {}
    for row in logged.round_robin:
        of_runs.setdefault(str(row["run"]), []).append(row["auc"])
    return float(np.mean([np.mean(auc) for auc in of_runs.values()])) if of_runs else None


ROUND_ROBIN_AUC = round_robin_auc.__name__
