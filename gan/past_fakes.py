"""What a discriminator still knows of the fakes it was once trained on."""

from collections.abc import Mapping, Sequence

import numpy as np

from forgetting.accuracy import roc_auc


def scores(
    discriminator: int, real: np.ndarray, fakes: Mapping[int, np.ndarray]
) -> list[dict[str, float]]:
    """How well a discriminator tells real images from the fakes of each generator so far.

    discriminator: the step it is of. real: its logits (N,) for held-out real images; fakes:
    generator's step -> its logits (M,) for the fakes. A row of the matrix for each generator:
    balanced accuracy, and area under the ROC curve.
    """
    rows = []
    for step, fake in fakes.items():
        rows.append(
            {
                "discriminator": discriminator,
                "generator": step,
                "accuracy": float(((real > 0).mean() + (fake <= 0).mean()) / 2),
                "auc": roc_auc(real, fake),
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
