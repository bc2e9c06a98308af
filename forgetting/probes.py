"""Linear probes: how well a linear classifier reads the image's class off frozen features."""

import os
import warnings

import torch
import torch.nn.functional as F


def pool_map(feature_map: torch.Tensor, limit: int) -> torch.Tensor:
    """Average a map (N, C, h, w) over a grid so coarse that at most `limit` numbers are left.

    Returns (N, C * g * g) float32 with the largest g <= h for which C * g * g <= limit (g >= 1).
    """
    channels, height = feature_map.shape[1], feature_map.shape[2]
    grid = max(1, min(height, int((limit / channels) ** 0.5)))
    return F.adaptive_avg_pool2d(feature_map.float(), grid).flatten(1)


def linear_probe(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    c: float = 0.01,
    max_iterations: int = 500,
    array_api: bool | None = None,
) -> tuple[float, bool]:
    """Test accuracy in 0..1 of scikit-learn's LogisticRegression, and whether it converged.

    Features that are no numbers (of a diverged net) give NaN, False.

    Features (N, D) float32, standardised here with the training features' mean and deviation;
    labels (N,) int64. c: inverse strength of the L2 penalty, LogisticRegression's C.
    array_api: fit the tensors where they are instead of NumPy's arrays, for which SCIPY_ARRAY_API=1
    must be set before SciPy's first import; None: if it is, and they are on a GPU.
    """
    import sklearn
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not (train_features.isfinite().all() and test_features.isfinite().all()):
        return float("nan"), False
    mean, deviation = train_features.mean(0), train_features.std(0, correction=0)
    deviation = torch.where(deviation > 1e-8, deviation, 1.0)
    # Divided in place: there may be gigabytes of them.
    train = (train_features - mean).div_(deviation), train_labels.to(train_features.device)
    test = (test_features - mean).div_(deviation), test_labels.to(test_features.device)
    if array_api is None:
        array_api = train_features.is_cuda and os.environ.get("SCIPY_ARRAY_API") == "1"
    if not array_api:
        train, test = [x.cpu().numpy() for x in train], [x.cpu().numpy() for x in test]
    model = LogisticRegression(C=c, max_iter=max_iterations)
    with sklearn.config_context(array_api_dispatch=array_api), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(*train)
        accuracy = float(model.score(*test))
    return accuracy, int(max(model.n_iter_)) < max_iterations


def choose_c(
    features: torch.Tensor,
    labels: torch.Tensor,
    grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> float:
    """The C of `grid` that does best on a held-out fifth of the training images.

    features (N, D) float32, labels (N,) int64. Climbs the ascending grid until the accuracy falls,
    for the large C take longest to fit; of equals the smallest.
    """
    held_out = torch.arange(len(labels), device=features.device) % 5 == 0
    labels = labels.to(features.device)
    fit, judge = ~held_out, held_out
    best, best_score = grid[0], -1.0
    for c in grid:
        score, _ = linear_probe(features[fit], labels[fit], features[judge], labels[judge], c)
        if score > best_score:
            best, best_score = c, score
        elif score < best_score:
            break
    return best
