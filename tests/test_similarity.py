import numpy as np
import pytest
import torch

from experiments.run import checkpoints
from forgetting.files import table
from forgetting.similarity import Drift, cka, compact


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


def test_drift_is_of_each_two_probes_and_goes_on_to_the_bit(digits):
    drift = Drift(digits)
    images = digits.test_images.flatten(1).float()
    tested = torch.arange(len(images))
    probes = {0: images[:, :9], 5: images[:, :30] * 1e30, 7: torch.ones(len(images), 4)}
    for step, vectors in probes.items():
        drift.add(step, drift.of_tested(vectors, tested))
    shown = digits.balanced_test_subset(1000)
    pairs = {(row["step"], row["earlier"]): row["cka"] for row in drift.rows}
    assert list(pairs) == [(5, 0), (7, 0), (7, 5)]
    # Half precision is enough, and no feature is too large for it.
    assert pairs[5, 0] == pytest.approx(cka(images[shown, :9], images[shown, :30]), abs=1e-4)
    assert np.isnan(pairs[7, 0])  # what does not vary is like nothing
    restored = Drift(digits)
    restored.restore(drift.parts() | {"fakes-5": None})
    for either in (drift, restored):
        either.add(9, images[shown, :30].cos())
    assert str(restored.rows) == str(drift.rows) and len(drift.rows) == 6
    assert drift.parts()["features-5"]["features"].dtype == torch.float16


def test_what_is_written_of_the_drift_does_not_grow_with_what_is_there(digits, tmp_path):
    drift, written, of_checkpoints = Drift(digits), [], []
    for step in range(60):
        drift.add(step, features(step, 5))
        of_step = [drift.file(last=step == 59), drift.file(last=False)]  # no probe before the other
        assert not of_step[1]
        written += [len(content) for content in of_step[0].values()]
        checkpoints.save(tmp_path, step, {"study": {"parts": drift.parts()}}, keep=1)
        of_checkpoints.append(checkpoints.stored(tmp_path)[0].stat().st_size)
    assert written[-1] == len(table(drift.rows)) and sum(written) < 12 * written[-1]
    assert len(written) < 45
    a_name = (of_checkpoints[-1] - of_checkpoints[9]) / 50  # of a part's file
    assert a_name < 100


def test_fewer_tested_images_hold_those_of_the_drift(digits):
    some = digits.balanced_test_subset(300)
    drift = Drift(digits)
    drift.images = digits.balanced_test_subset(50)
    assert torch.equal(drift.of_tested(some[:, None], some)[:, 0], drift.images)


def test_features_are_kept_in_half_precision_without_their_mean_and_scale():
    x = features(0)
    kept, again = compact(x), compact(1e6 * x - 3e7)
    assert kept.abs().max() == 1 and (kept - again).abs().max() < 2e-3
    assert cka(x, kept) == pytest.approx(1, abs=1e-6)
