"""What a discriminator still knows of the fakes it was once trained on."""

from collections.abc import Mapping, Sequence

import numpy as np


def scores(
    discriminator: int, real: np.ndarray, fakes: Mapping[int, np.ndarray]
) -> list[dict[str, float]]:
    """How well a discriminator tells real images from the fakes of each generator so far.

    discriminator: the step it is of. real: its logits (N,) for held-out real images; fakes:
    generator's step -> its logits (M,) for the fakes. A row of the matrix for each generator:
    balanced accuracy, and area under the ROC curve.
    """
    from sklearn.metrics import roc_auc_score

    rows = []
    for step, fake in fakes.items():
        truth = np.repeat([1, 0], [len(real), len(fake)])
        rows.append(
            {
                "discriminator": discriminator,
                "generator": step,
                "accuracy": float(((real > 0).mean() + (fake <= 0).mean()) / 2),
                "auc": float(roc_auc_score(truth, np.concatenate([real, fake]))),
            }
        )
    return rows


def current_and_past(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What is logged of one discriminator's `scores`: those on the fakes of its own generator, and
    the means over the generators before it, the untrained one among them."""
    *past, now = rows
    values = {"current_fakes/accuracy": now["accuracy"], "current_fakes/auc": now["auc"]}
    if past:
        for name in ("accuracy", "auc"):
            values[f"past_fakes/{name}"] = float(np.mean([row[name] for row in past]))
    return values


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
