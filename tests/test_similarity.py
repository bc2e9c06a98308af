import numpy as np
import pytest
import torch

from forgetting.similarity import cka


def features(seed, n=200, d=8):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    # Song et al.'s estimate written out, for five images of one and two features.
    x = np.array([[0.0], [1.0], [2.0], [4.0], [7.0]])
    y = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [2.0, 5.0], [6.0, 6.0]])

    def hsic(a, b):
        k, m, n, one = a @ a.T, b @ b.T, 5, np.ones(5)
        np.fill_diagonal(k, 0), np.fill_diagonal(m, 0)
        found = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (found - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3))

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected)


def test_rotated_scaled_and_shifted_features_are_the_same():
    x = features(0)
    rotation = torch.linalg.qr(features(1, 8))[0]
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-6)
    assert cka(x, x[:, :4]) < 0.9


def test_more_features_than_images_look_alike_to_the_biased_measure_alone():
    x, y = features(0, 50, 500), features(1, 50, 500)
    assert abs(cka(x, y)) < 0.05

    def biased(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())

    assert biased(x, y) > 0.8


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="features of the same images"):
        cka(features(0, 5), features(0, 6))
    with pytest.raises(ValueError, match="do not vary"):
        cka(features(0, 9), torch.ones(9, 3))
