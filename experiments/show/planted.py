"""What a net keeps of planted knowledge, and what its training teaches it beside: a run whose net
was planted (`plant_updates`), and its twin whose net was not.

Both are of the final layer: a linear probe, for the image's class, of the vector that the heads
read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.run.stored import StoredRun
from experiments.show.memory import key_without
from forgetting.measures import FINAL_LAYER, HALF_LIFE, KEPT, TAUGHT


@dataclass(frozen=True)
class Planted:
    """Of a planted run and its twin: steps (K,) and the final layer's probe (K,) of either, from
    the start on."""

    run: StoredRun
    steps: np.ndarray
    planted: np.ndarray
    bare: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """(K,) planted minus not."""
        return self.planted - self.bare

    def half_life(self) -> float | None:
        """Updates until half of what was planted is left, interpolated; the run's length where it
        never is, None where planting gave nothing to be kept."""
        if self.kept[0] <= 0:
            return None
        half = self.kept[0] / 2
        below = np.flatnonzero(self.kept <= half)
        if not below.size or below[0] == 0:
            return float(self.steps[-1])
        i = below[0]
        x, y = self.steps[[i, i - 1]], self.kept[[i, i - 1]]  # ascending in y
        return float(np.interp(half, y, x))

    def share_of_first_turn(self) -> float | None:
        """What is kept at the later ends of turns, their mean, as a share of what is kept at the
        first one's: what a method keeps that has nothing to hold before; None where that is
        nothing, and for a GAN, which has no turns."""
        first, later = self.kept[1], self.kept[2:]
        if "stream.switch" not in self.run.identity or first <= 0 or not later.size:
            return None
        return float(later.mean() / first)


def planted(runs: Sequence[StoredRun]) -> list[Planted]:
    """Every planted run that has a twin among them."""
    bare = {_key(run): run for run in runs if not _plants(run) and FINAL_LAYER in run.metrics}
    found = []
    for run in runs:
        twin = bare.get(_key(run)) if _plants(run) else None
        if twin is not None:
            steps, values = run.metrics[FINAL_LAYER]
            found.append(Planted(run, steps, values, twin.metrics[FINAL_LAYER][1]))
    return found


def with_kept(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs; the planted ones that have a twin with what they keep, and what their training
    taught the twin, in their result: means over the task's ends."""
    found = {id(of.run): of for of in planted(runs)}
    result = []
    for run in runs:
        if of := found.get(id(run)):
            values = {
                KEPT.name: float(of.kept[1:].mean()),
                HALF_LIFE.name: of.half_life(),
                TAUGHT.name: float(of.bare[1:].mean() - of.bare[0]),
            }
            known = {name: value for name, value in values.items() if value is not None}
            run = replace(run, result=run.result | known)
        result.append(run)
    return result


def _plants(run: StoredRun) -> bool:
    return run.identity.get("plant_updates", 0) > 0


def _key(run: StoredRun) -> str:
    return key_without(run, {"plant_updates"})
