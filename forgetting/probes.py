"""Linear probes: how well a linear classifier reads the image's class off frozen features."""

import warnings

import numpy as np
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
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    c: float = 0.01,
    max_iterations: int = 500,
) -> tuple[float, bool]:
    """Test accuracy in 0..1 of scikit-learn's LogisticRegression, and whether it converged.

    Features that are no numbers (of a diverged net) give NaN, False.

    Features (N, D) float, standardised here with the training features' mean and deviation.
    c: inverse strength of the L2 penalty, LogisticRegression's C.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not (np.isfinite(train_features).all() and np.isfinite(test_features).all()):
        return float("nan"), False
    mean, deviation = train_features.mean(0), train_features.std(0)
    deviation = np.where(deviation > 1e-8, deviation, 1.0)
    model = LogisticRegression(C=c, max_iter=max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((train_features - mean) / deviation, train_labels)
    accuracy = model.score((test_features - mean) / deviation, test_labels)
    return float(accuracy), bool(model.n_iter_.max() < max_iterations)


def choose_c(
    features: np.ndarray,
    labels: np.ndarray,
    grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> float:
    """The C of `grid` that does best on a held-out fifth of the training images.

    features (N, D) float, labels (N,) int. Climbs the ascending grid until the accuracy falls, for
    the large C take longest to fit; of equals the smallest.
    """
    held_out = np.arange(len(labels)) % 5 == 0
    fit, judge = ~held_out, held_out
    best, best_score = grid[0], -1.0
    for c in grid:
        score, _ = linear_probe(features[fit], labels[fit], features[judge], labels[judge], c)
        if score > best_score:
            best, best_score = c, score
        elif score < best_score:
            break
    return best
