"""How fast the linear probe is."""

from collections.abc import Iterator

import numpy as np
import torch

from experiments.benchmarks import device_name, row, seconds
from forgetting import data, probes
from forgetting.errors import UserError

AIM_PROBE = {"cpu": "at least 2", "gpu": "at least 20"}


def linear_probe(rounds: int, device: torch.device, small: bool = False) -> Iterator[dict]:
    """50,000 x 8,192 features of real images' pixels: ours against scikit-learn on float64."""
    n, n_test, size = (500, 200, 16) if small else (50_000, 2_000, 64)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = data.load("digits", "", size)
    noise = torch.Generator().manual_seed(0)

    def features(images, n):
        chosen = torch.randint(len(images), (n,), generator=noise)
        pixels = images[chosen].float().mean(1).flatten(1).repeat(1, 2)
        return pixels + 40 * torch.randn(pixels.shape, generator=noise), chosen

    train, chosen = features(digits.train_images, n)
    labels = digits.train_labels[chosen]
    test, chosen = features(digits.test_images, n_test)
    test_labels = digits.test_labels[chosen]
    here = [x.to(device) for x in (train, labels, test, test_labels)]
    accuracies = {}

    def ours():
        accuracies["ours"], converged = probes.linear_probe(*here, c=1e-4)
        if not converged:
            raise UserError("bench: the probe did not converge")

    arrays = [x.numpy().astype(np.float64) for x in (train, test)]

    def theirs():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=500))
        model.fit(arrays[0], labels.numpy())
        accuracies["theirs"] = model.score(arrays[1], test_labels.numpy())

    if device.type == "cuda":
        ours()  # the first is slow to start
        alone = seconds(theirs)  # on the CPU, whatever the GPU does, and far longer
        ratios = [alone / seconds(ours, device) for _ in range(rounds)]
    else:
        ratios = [seconds(theirs) / seconds(ours) for _ in range(rounds)]
    if abs(accuracies["ours"] - accuracies["theirs"]) > 0.002:
        raise UserError(f"bench: the probes' accuracies differ: {accuracies}")
    name = f"linear probe {n:,} x {train.shape[1]:,}, of float64's"
    yield row(name, device_name(device), ratios, AIM_PROBE)
