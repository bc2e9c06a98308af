import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forgetting.probes import choose_c, linear_probe, pool_map


@pytest.mark.parametrize(
    "shape,limit,numbers",
    [((2, 16, 8, 8), 512, 400), ((2, 16, 8, 8), 10**6, 1024), ((2, 128, 8, 8), 16, 128)],
)
def test_pooling_keeps_within_the_limit_and_the_mean(shape, limit, numbers):
    torch.manual_seed(0)
    feature_map = torch.rand(shape)
    pooled = pool_map(feature_map, limit)
    assert pooled.shape == (2, numbers)
    if numbers == shape[1]:
        torch.testing.assert_close(pooled, feature_map.mean((2, 3)))


def test_the_probe_is_standardised_logistic_regression():
    x, y = load_digits(return_X_y=True)
    x = x + 0.0
    x[:, 0] = 3.0  # a feature that never changes must not divide by zero
    train, test = np.arange(1000), np.arange(1000, 1500)
    parts = [torch.from_numpy(part) for part in (x[train], y[train], x[test], y[test])]
    accuracy, converged = linear_probe(*parts)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    assert accuracy == pytest.approx(reference.fit(x[train], y[train]).score(x[test], y[test]))
    assert converged
    assert not linear_probe(*parts, max_iterations=2)[1]
    # The way of a GPU's tensors, taken here by the CPU's.
    assert linear_probe(*parts, array_api=True) == (pytest.approx(accuracy, abs=0.002), True)


def test_c_is_the_best_of_the_grid_by_held_out_training_images():
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x[:600]), torch.from_numpy(y[:600])
    held_out = np.arange(600) % 5 == 0

    def score(c):
        return linear_probe(x[~held_out], y[~held_out], x[held_out], y[held_out], c)[0]

    grid = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    chosen = choose_c(x, y, grid)
    assert score(chosen) == max(map(score, grid)) and chosen > 1e-5
