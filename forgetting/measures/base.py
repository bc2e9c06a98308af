"""What a measure is, and what it is read off."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetting.streams import resolved_order

Metrics = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Logged:
    """What measures are read off. metrics: name -> (steps (K,), values (K,)); config: the run's
    settings; past_fakes: the matrix, a row a pair of `discriminator` and `generator` (steps) with
    `accuracy` and `auc`; round_robin: the same of the last discriminator and the generators of all
    runs of its seed, whose `run` is named."""

    metrics: Metrics
    config: Mapping[str, Any]
    past_fakes: Sequence[Mapping[str, float]] = ()
    round_robin: Sequence[Mapping[str, Any]] = ()

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


def measure(
    found: list[Measure], words: str, better: str | None, subject: str, needs: str
) -> Callable:
    """Makes the function below a measure of its name, one of `found`."""

    def add(of: Callable[[Logged], float | None]) -> Callable[[Logged], float | None]:
        found.append(Measure(of.__name__, words, better, subject, needs, of))
        return of

    return add
