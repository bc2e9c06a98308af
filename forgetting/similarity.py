"""How alike two sets of features are: centred kernel alignment."""

import torch


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
    of_x, of_y = _gram(x), _gram(y)
    own = _hsic(of_x, of_x), _hsic(of_y, of_y)
    if min(own) <= 0:
        raise ValueError("cka: features that do not vary are like no others")
    return float(_hsic(of_x, of_y) / (own[0] * own[1]) ** 0.5)


def _gram(features: torch.Tensor) -> torch.Tensor:
    """Inner products (N, N) float64, its diagonal zero. Centred first: the estimate is the same,
    and no large mean is left to cancel."""
    features = features.double()
    features = features - features.mean(0)
    return (features @ features.T).fill_diagonal_(0)


def _hsic(k: torch.Tensor, other: torch.Tensor) -> float:
    """Unbiased estimate, from inner products (N, N) whose diagonal is zero."""
    n = len(k)
    sums = k.sum() * other.sum() / ((n - 1) * (n - 2))
    rows = (k.sum(0) * other.sum(0)).sum() * 2 / (n - 2)
    return float(((k * other).sum() + sums - rows) / (n * (n - 3)))
