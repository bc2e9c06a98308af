import numpy as np
import pytest
import torch
from conftest import PROJECT
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forgetting import probes
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


@pytest.fixture
def pixels():
    """Train and test pixels of digits with their labels, as linear_probe takes them."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    x[:, 0] = 3.3  # a feature that never changes must not divide by zero
    return x[:1000], y[:1000], x[1000:1500], y[1000:1500]


def scikit_learns(c):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))


def its_accuracy(parts, c):
    x, y, x_test, y_test = (part.double().numpy() for part in parts)
    return scikit_learns(c).fit(x, y).score(x_test, y_test)


def only(classes, pixels):
    train, test = (torch.isin(labels, torch.tensor(list(classes))) for labels in pixels[1::2])
    return [pixels[0][train], pixels[1][train], pixels[2][test], pixels[3][test]]


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("threads, images", [(1, 1000), (2, 150), (3, 30)])
@pytest.mark.parametrize("classes", [range(10), [3, 8]], ids=["ten", "two"])
def test_the_probe_is_scikit_learns(pixels, c, threads, images, classes, monkeypatch):
    """Also in blocks that do not come out even."""
    monkeypatch.setattr(probes, "BLOCK", images * 64)
    fitted, fit = [], probes._fit
    monkeypatch.setattr(probes, "_fit", lambda *a: fitted.append((a[0], fit(*a))) or fitted[-1][1])
    parts = only(classes, pixels)
    torch.set_num_threads(threads)
    try:
        accuracy, converged = linear_probe(*parts, c)
    finally:
        torch.set_num_threads(1)
    assert converged and accuracy == pytest.approx(its_accuracy(parts, c), abs=0.004)
    [(blocks, (weights, _))] = fitted
    x, y = parts[0].double(), parts[1]
    assert len(blocks) == -(-len(y) // min(images, len(y)))
    p = (blocks.flatten(0, 1)[: len(y)] @ weights.T).softmax(1)
    np.testing.assert_allclose(p, scikit_learns(c).fit(x, y).predict_proba(x), atol=0.01)


def test_labels_need_not_be_0_to_k(pixels):
    parts = only([3, 5, 8], pixels)[:2] + only([3, 5, 6, 8], pixels)[2:]
    accuracy, _ = linear_probe(*parts)
    assert accuracy == pytest.approx(its_accuracy(parts, 0.01))
    assert accuracy < 0.8  # no 6 was there to learn


def test_a_feature_that_never_changed_says_nothing(pixels):
    accuracy, _ = linear_probe(*pixels)
    pixels[2][:, 0] += 0.001
    assert linear_probe(*pixels)[0] == accuracy


def test_a_probe_says_where_it_has_not_converged(pixels):
    assert not linear_probe(*pixels, max_iterations=2)[1]


@pytest.mark.parametrize("part, wrong", [(0, torch.nan), (0, 1e20), (2, torch.nan), (2, 3e38)])
def test_features_that_are_no_numbers_give_no_accuracy(pixels, part, wrong):
    pixels[0][:, 5] /= 100  # so that 3e38, divided by its deviation, is too large
    pixels[part][:2, 5] = wrong
    pixels[part][0, 5] = -wrong
    accuracy, converged = linear_probe(*pixels)
    assert np.isnan(accuracy) and not converged


def test_features_stay_as_they_are(pixels):
    before = [part.clone() for part in pixels]
    linear_probe(*pixels)
    assert all(map(torch.equal, pixels, before))


def test_c_is_the_best_of_the_grid_by_held_out_training_images():
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x[:600]), torch.from_numpy(y[:600])
    held_out = np.arange(600) % 5 == 0

    def score(c):
        return linear_probe(x[~held_out], y[~held_out], x[held_out], y[held_out], c)[0]

    grid = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    chosen = choose_c(x, y, grid)
    assert score(chosen) == max(map(score, grid)) and chosen > 1e-5


def test_the_final_layers_probe_has_the_strength_that_is_told():
    text = " ".join((PROJECT / "docs/searches.md").read_text().split())
    assert f"C is {probes.FINAL_LAYER_C:g} for every probe of the final layer" in text
