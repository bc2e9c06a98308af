import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forgetting.probes import _fit, choose_c, linear_probe, pool_map


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


@pytest.fixture
def digits_pixels():
    """Train and test pixels with their labels, as doubles: so one feature may stay the same."""
    x, y = load_digits(return_X_y=True)
    x[:, 0] = 3.0  # a feature that never changes must not divide by zero
    return x[:1000], y[:1000], x[1000:1500], y[1000:1500]


def scikit_learns(c):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0])
def test_the_probe_is_scikit_learns_standardised_logistic_regression(digits_pixels, c):
    x, y, x_test, y_test = digits_pixels
    reference = scikit_learns(c).fit(x, y)
    parts = [torch.from_numpy(part) for part in digits_pixels]
    accuracy, converged = linear_probe(parts[0].float(), parts[1], parts[2].float(), parts[3], c)
    assert converged
    assert accuracy == pytest.approx(reference.score(x_test, y_test), abs=0.004)
    scaled = torch.from_numpy(np.column_stack([reference[0].transform(x), np.ones(1000)]))
    weights, _ = _fit(scaled.float().view(4, 250, -1), parts[1], 10, 64, c, 500)
    p = (scaled.float() @ weights.T).softmax(1)
    np.testing.assert_allclose(p, reference.predict_proba(x), atol=0.01)


def test_labels_need_not_be_0_to_k(digits_pixels):
    x, y, x_test, y_test = digits_pixels
    some, of_test = np.isin(y, [3, 5, 8]), np.isin(y_test, [3, 5, 6, 8])
    parts = [x[some], y[some], x_test[of_test], y_test[of_test]]
    expected = scikit_learns(0.01).fit(*parts[:2]).score(*parts[2:])
    accuracy, _ = linear_probe(*map(torch.from_numpy, parts))
    assert accuracy == pytest.approx(expected) and accuracy < 0.8  # no 6 was there to learn


def test_a_probe_says_where_it_has_not_converged(digits_pixels):
    parts = [torch.from_numpy(part) for part in digits_pixels]
    assert not linear_probe(*parts, max_iterations=2)[1]
    parts[2][0, 0] = torch.nan
    accuracy, converged = linear_probe(*parts)
    assert np.isnan(accuracy) and not converged


def test_features_stay_as_they_are(digits_pixels):
    parts = [torch.from_numpy(part) for part in digits_pixels]
    before = [part.clone() for part in parts]
    linear_probe(*parts)
    assert all(map(torch.equal, parts, before))


def test_c_is_the_best_of_the_grid_by_held_out_training_images():
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x[:600]), torch.from_numpy(y[:600])
    held_out = np.arange(600) % 5 == 0

    def score(c):
        return linear_probe(x[~held_out], y[~held_out], x[held_out], y[held_out], c)[0]

    grid = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    chosen = choose_c(x, y, grid)
    assert score(chosen) == max(map(score, grid)) and chosen > 1e-5
