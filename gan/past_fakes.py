"""What a discriminator still knows of the fakes it was once trained on."""

from collections.abc import Mapping, Sequence

import numpy as np


def measures(rows: Sequence[Mapping[str, float]], name: str) -> dict[str, float]:
    """Means over past generators' fakes, but the untrained one's, for the last discriminator.

    rows: the matrix, one a pair of `discriminator` and `generator` (steps); name: "accuracy" or
    "auc". {} while there is no past.

    drop: from the moment they were current. That moment's accuracy is low where a generator is
    good, so a negative drop is no memory. forgetting: from the best that a discriminator from then
    to the last but one did on them, as Chaudhry et al. 2018 (arXiv 1801.10112) define it for tasks.
    """
    of = {(row["discriminator"], row["generator"]): row[name] for row in rows}
    steps = sorted({row["discriminator"] for row in rows})
    *before, last = steps
    past = [s for s in before if s > 0]
    if not past:
        return {}
    now = {s: of[last, s] for s in past}
    best = {s: max(of[t, s] for t in before if t >= s) for s in past}
    return {
        f"past_fakes_{name}": float(np.mean(list(now.values()))),
        f"past_fakes_{name}_drop": float(np.mean([of[s, s] - now[s] for s in past])),
        f"past_fakes_{name}_forgetting": float(np.mean([best[s] - now[s] for s in past])),
    }
