import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from forgetting import metrics

# Three tasks. R[i, j]: accuracy on task j after training on task i.
R = np.array([[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.9, 0.7]])
UNTRAINED = np.array([0.5, 0.4, 0.3])


def test_measures_of_the_literature_by_hand():
    assert metrics.average_accuracy(R) == pytest.approx((0.6 + 0.9 + 0.7) / 3)
    # Best before the end: task 0: 0.9, task 1: 0.8 (the end itself does not count).
    assert metrics.forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)
    assert metrics.backward_transfer(R) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert metrics.forward_transfer(R, UNTRAINED) == pytest.approx(((0.5 - 0.4) + (0.6 - 0.3)) / 2)


@pytest.mark.parametrize("outputs", [1, 4])
def test_one_vs_all_accuracy_is_scikit_learns_balanced_accuracy(outputs):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, outputs))
    accuracy = metrics.one_vs_all_accuracy(logits, labels, 4)
    for task in range(4):
        says_yes = logits[:, task if outputs > 1 else 0] > 0
        assert accuracy[task] == pytest.approx(balanced_accuracy_score(labels == task, says_yes))


def test_always_no_is_chance():
    labels = np.arange(100) % 10
    assert metrics.one_vs_all_accuracy(np.full(100, -1.0), labels, 10) == pytest.approx(0.5)


def test_mean_over_iterations_does_not_favour_crowded_stretches():
    steps = np.array([1, 2, 3, 11])
    assert metrics.mean_over_iterations(steps, steps.astype(float), 1, 11) == pytest.approx(6)


def test_current_task_measures_by_hand():
    # Two tasks of 200 iterations, two cycles; linear from `low` at 1 to `high` at 200.
    lows, highs = [0.5, 0.1, 0.2, 0.3], [0.9, 0.8, 0.8, 0.9]
    steps = np.array([0, *(s for task in range(4) for s in (200 * task + 1, 200 * task + 200))])
    accuracy = np.array([0.5, *(a for pair in zip(lows, highs, strict=True) for a in pair)])
    got = metrics.current_task_measures(steps, accuracy, 200, 2, 2)
    first, last = (0.7 + 0.45) / 2, (0.5 + 0.6) / 2
    assert got["first_cycle"] == pytest.approx(first)
    assert got["last_cycle"] == pytest.approx(last)
    assert got["cycle_gain"] == pytest.approx(last - first)
    assert "cycle_gain" not in metrics.current_task_measures(steps[:5], accuracy[:5], 200, 2, 1)
    assert got["switch_fall"] == pytest.approx(np.mean([0.9 - 0.1, 0.8 - 0.2, 0.8 - 0.3]))
    # Mean over updates 1..100 is the value half-way: 49.5 of the 199 steps up.
    climb = [low + (high - low) * 49.5 / 199 for low, high in zip(lows[1:], highs[1:], strict=True)]
    assert got["recovery"] == pytest.approx(np.mean(climb))


def test_accuracy_matrix_takes_each_cycles_ends():
    steps = np.array([0, 1, 5, 6, 10, 11, 15, 16, 20])
    logged = {f"accuracy/task_{j}": (steps, steps + 100.0 * j) for j in range(2)}
    assert metrics.accuracy_matrix(logged, 5, 2, 0).tolist() == [[5, 105], [10, 110]]
    assert metrics.accuracy_matrix(logged, 5, 2, 1).tolist() == [[15, 115], [20, 120]]
