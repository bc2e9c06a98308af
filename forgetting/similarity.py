"""How alike two sets of features are, and how features drift while a net is trained."""

from collections.abc import Mapping
from typing import Any

import torch

from forgetting.data import Dataset
from forgetting.files import table

DRIFT_IMAGES = 1000  # test images whose features are compared
PART = "features-"


def cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Debiased linear CKA of two sets of features of the same images, at most 1.

    x (N, D), y (N, E) float, N > 3. 1 for features that are rotated or scaled; about 0 for features
    that have nothing to do with each other, also where there are more of them than images.
    Kornblith et al. 2019, arXiv 1905.00414, equation 4, with the unbiased estimate of HSIC of Song
    et al. 2012 ("Feature Selection via Dependence Maximization", equation 4), as Nguyen et al.
    (arXiv 2010.15327) have it. Raises ValueError where a set does not vary, or the numbers of
    images differ.
    """
    if len(x) != len(y) or len(x) <= 3:
        raise ValueError(f"cka: features of the same images, more than 3, not {len(x)}, {len(y)}")
    x, y = _centred(x), _centred(y)
    own = _hsic(x, x), _hsic(y, y)
    if not min(own) > 0:
        raise ValueError("cka: features that do not vary are like no others")
    return float(_hsic(x, y) / (own[0] * own[1]) ** 0.5)


def _centred(features: torch.Tensor) -> torch.Tensor:
    features = features.double()
    return features - features.mean(0)


def _hsic(x: torch.Tensor, y: torch.Tensor) -> float:
    """Song et al.'s estimate, of centred features (N, D) and (N, E).

    It is of the inner products K = x x' and L = y y', their diagonals made zero. Centred, the rows
    of x x' add up to zero, and so a row of K to minus what stood on its diagonal. Tr(K L) is
    |x' y|^2 less the diagonals' product. So no (N, N) is needed.
    """
    n = len(x)
    of_x, of_y = x.square().sum(1), y.square().sum(1)  # the diagonals
    together = (of_x * of_y).sum()
    sums = of_x.sum() * of_y.sum() / ((n - 1) * (n - 2))
    trace = (x.T @ y).square().sum() - together
    return float((trace + sums - 2 * together / (n - 2)) / (n * (n - 3)))


class Drift:
    """The CKA of the same test images' features between each two of a run's probes.

    rows: one a pair, `step` and `earlier` in updates, and `cka`; NaN where features do not vary or
    are no numbers.
    """

    def __init__(self, dataset: Dataset):
        self.images = dataset.balanced_test_subset(DRIFT_IMAGES)
        self.rows: list[dict[str, float]] = []
        # Step -> "features" (N, D), as `compact` makes them, and "cka" (M,) float64 with those of
        # the M probes before it.
        self.probes: dict[int, dict[str, torch.Tensor]] = {}
        self.in_file = 0  # rows, when it was last given

    def of_tested(self, vectors: torch.Tensor, tested: torch.Tensor) -> torch.Tensor:
        """Of the vectors (M, D) of the test images `tested` (M,), ascending indices, those (N, D)
        of the images that are compared."""
        return vectors[torch.isin(tested, self.images.to(tested.device))]

    def add(self, step: int, features: torch.Tensor) -> None:
        """Compare the features (N, D) of a probe with those of all before it."""
        latest, alike = compact(features), []
        for probe in self.probes.values():
            try:
                alike.append(cka(latest, probe["features"]))
            except ValueError:
                alike.append(float("nan"))
        alike = torch.tensor(alike, dtype=torch.float64)
        self._keep(step, {"features": latest, "cka": alike})

    def _keep(self, step: int, probe: dict[str, torch.Tensor]) -> None:
        for earlier, alike in zip(self.probes, probe["cka"].tolist(), strict=True):
            self.rows.append({"step": step, "earlier": earlier, "cka": alike})
        self.probes[step] = probe

    def file(self, last: bool) -> dict[str, bytes]:
        """drift.csv by its name, where it is due: at the last probe, and when it has grown by a
        tenth since it was given. Whole each time, it would cost the more the longer a run is."""
        if not self.rows or not (last or len(self.rows) > 1.1 * self.in_file):
            return {}
        self.in_file = len(self.rows)
        return {"drift.csv": table(self.rows)}

    def parts(self) -> dict[str, dict]:
        """The probes, of which a checkpoint writes each once."""
        return {f"{PART}{step}": probe for step, probe in self.probes.items()}

    def restore(self, parts: Mapping[str, Any]) -> None:
        """From a checkpoint's parts, of which others may be of something else."""
        self.rows, self.probes, self.in_file = [], {}, 0
        for name, part in parts.items():
            if name.startswith(PART):
                self._keep(int(name.removeprefix(PART)), part)


def compact(features: torch.Tensor) -> torch.Tensor:
    """Features (N, D) as they are kept, (N, D) float16 on the CPU: centred, and divided by the
    largest. CKA is of neither, so that half precision, whose rounding changes it in the sixth
    digit, is exact enough, and no feature is too large for it."""
    centred = _centred(features)
    return (centred / centred.abs().max()).half().cpu()
