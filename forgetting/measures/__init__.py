"""Measures: what was learnt and what was forgotten, read off what a run logged.

Pure functions, each with its words and which way is better. They make a run's result at its end,
and again whenever it is read, so that a measure reaches runs older than itself.
"""

import re
from collections.abc import Mapping
from typing import Any

from forgetting.measures import final_layer, gan, opponents, tasks, transfer
from forgetting.measures.base import (
    DISTANCE,
    LAYER,
    OPPONENTS,
    PAST_FAKES,
    PROBE,
    QUALITY,
    REMEMBERED,
    TASK_PROBE,
    TASKS,
    TRANSFER,
    Logged,
    Measure,
    Metrics,
)
from forgetting.measures.final_layer import FINAL_LAYER, HALF_LIFE, KEPT, TAUGHT
from forgetting.measures.gan import BEST_BLOCK, FALLS, ROUND_ROBIN_AUC, is_distance
from forgetting.measures.opponents import MEMORY, SAVINGS, SHARE
from forgetting.measures.tasks import mean_over_iterations
from forgetting.measures.transfer import (
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)

__all__ = [
    "BEST_BLOCK", "DISTANCE", "FALLS", "FINAL_LAYER", "HALF_LIFE", "KEPT", "LAYER", "MEMORY",
    "OPPONENTS", "PAST_FAKES", "PROBE", "QUALITY", "REMEMBERED", "ROUND_ROBIN_AUC", "SAVINGS",
    "SHARE", "TASKS", "TASK_PROBE", "TAUGHT", "TRANSFER", "Logged", "Measure", "accuracy_matrix",
    "average_accuracy", "backward_transfer", "forgetting", "forward_transfer", "is_distance",
    "is_name", "known", "mean_over_iterations", "meets_fakes", "names", "of_run", "read_anew",
]  # fmt: skip


def known(metrics: Metrics, config: Mapping[str, Any]) -> list[Measure]:
    """All measures that a run with these metrics and settings may have."""
    # With one head for all tasks the labels change their meaning, and what falls is not forgotten.
    of_fakes, omits = meets_fakes(config), config.get("stream", {}).get("omit")
    clear = (of_fakes and not omits) or config.get("head") == "per_task"
    cycles = range(config["cycles"]) if clear else ()
    kinds = ("accuracy", "auc") if of_fakes else ("accuracy",)
    found = [*tasks.MEASURES, *final_layer.MEASURES, *gan.MEASURES]
    found += [m for cycle in cycles for kind in kinds for m in transfer.of_cycle(cycle, kind)]
    found += opponents.MEASURES if of_fakes and not omits else []
    # Of features, which no label's change forces; a generator that is omitted has no turn.
    of_features = range(0 if omits else config.get("cycles", 0))
    found += [transfer.representation(cycle) for cycle in of_features]
    found += [m for metric in sorted(metrics) for m in gan.quality(metric)]
    return [measure for measure in found if measure.needs in metrics]


def names() -> list[str]:
    """What a run's measures may be called, and the subjects that tables show them by. Of those of a
    cycle the first; of distances that of Inception."""
    found = [*tasks.MEASURES, *final_layer.MEASURES, *gan.MEASURES, *opponents.MEASURES]
    found += [*FALLS, KEPT, HALF_LIFE, transfer.representation(0)]
    found += [m for kind in ("accuracy", "auc") for m in transfer.of_cycle(0, kind)]
    found += [m for metric in ("fid", "kid", "inception_score") for m in gan.quality(metric)]
    return list(dict.fromkeys([m.name for m in found] + [m.subject for m in found]))


def is_name(text: str) -> bool:
    """Whether a measure, or the measures of a subject, may be called so."""
    first = re.sub(r"/cycle_[1-9]\d*$", "/cycle_1", text)
    return first in names() or is_distance(text)


def meets_fakes(config: Mapping[str, Any]) -> bool:
    """Whether a run's tasks are recorded generators."""
    return config.get("stream", {}).get("name") == "fakes"


def of_run(logged: Logged) -> dict[str, float]:
    """Every measure that applies to a run, by name."""
    found = {m.name: m.of(logged) for m in known(logged.metrics, logged.config)}
    return {name: value for name, value in found.items() if value is not None}


def read_anew(result: Mapping[str, float], logged: Logged) -> dict[str, float]:
    """A stored result with its measures as they are read today; one that has learnt since that it
    does not apply goes."""
    stale = {measure.name for measure in known(logged.metrics, logged.config)}
    return {name: value for name, value in result.items() if name not in stale} | of_run(logged)
