"""What is left that no longer shows: how soon a net learns again what it once knew.

Ebbinghaus' savings ("Über das Gedächtnis", 1885): what was learnt before is learnt again faster,
also where nothing of it can be recalled.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np

from forgetting.devices import all_to_device
from forgetting.learner import Batch, Learner

TARGET = 0.9  # area under the ROC curve
CHECKS = (0, 5, 10, 20, 30, 40, 50, 75, 100)  # updates after which to look; then every 50


def updates_to_relearn(
    learner: Learner,
    batches: Iterator[Batch],
    auc: Callable[[Learner], float],
    cap: int,
) -> float:
    """Updates that a copy of the learner's net needs on `batches` until `auc` is 0.9.

    Interpolated between looks; `cap` where it never is. The copy is trained without methods but one
    that replaces the objective, by an optimiser that begins anew. `learner` is left as it is.
    """
    again = learner.bare(copy.deepcopy(learner.net))
    looks = [*(look for look in CHECKS if look < cap), *range(150, cap, 50), cap]
    done, before = 0, None
    for look in looks:
        again.train()
        for _ in range(look - done):
            drawn = again.draw(again.player, again.batch_size, 0)
            again.update(next(batches), all_to_device(drawn, again.device))
        done, now = look, auc(again)
        if now >= TARGET:
            return reached(before, (look, now))
        before = look, now
    return float(cap)


def reached(before: tuple[int, float] | None, now: tuple[int, float]) -> float:
    """Where the line between two looks, (updates, area), crosses the target."""
    if before is None:
        return float(now[0])
    return float(np.interp(TARGET, [before[1], now[1]], [before[0], now[0]]))
