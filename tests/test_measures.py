import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import PROJECT
from sklearn.metrics import balanced_accuracy_score

from forgetting import measures
from forgetting.accuracy import one_vs_all_accuracy
from forgetting.measures import Logged, Measure, of_run

# Three tasks. R[i, j]: accuracy on task j after training on task i.
R = np.array([[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.9, 0.7]])
UNTRAINED = np.array([0.5, 0.4, 0.3])
LATER = ("probe_gain", "representation_forgetting")  # than some shipped runs


def test_measures_of_the_literature_by_hand():
    assert measures.average_accuracy(R) == pytest.approx((0.6 + 0.9 + 0.7) / 3)
    # Best before the end: task 0: 0.9, task 1: 0.8 (the end itself does not count).
    assert measures.forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)
    assert measures.backward_transfer(R) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert measures.forward_transfer(R, UNTRAINED) == pytest.approx(((0.5 - 0.4) + (0.6 - 0.3)) / 2)


@pytest.mark.parametrize("outputs", [1, 4])
def test_one_vs_all_accuracy_is_scikit_learns_balanced_accuracy(outputs):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, outputs))
    accuracy = one_vs_all_accuracy(logits, labels, 4)
    for task in range(4):
        says_yes = logits[:, task if outputs > 1 else 0] > 0
        assert accuracy[task] == pytest.approx(balanced_accuracy_score(labels == task, says_yes))


def test_always_no_is_chance():
    labels = np.arange(100) % 10
    assert one_vs_all_accuracy(np.full(100, -1.0), labels, 10) == pytest.approx(0.5)


def test_mean_over_iterations_does_not_favour_crowded_stretches():
    steps = np.array([1, 2, 3, 11])
    assert measures.mean_over_iterations(steps, steps.astype(float), 1, 11) == pytest.approx(6)


def of_tasks(steps, accuracy, cycles, head="shared"):
    """Two tasks of 200 iterations; as accuracies on both tasks, and as probes, the same values."""
    metrics = dict.fromkeys(
        ("accuracy/current", "accuracy/task_0", "accuracy/task_1"), (steps, accuracy)
    )
    ends = np.isin(steps, 200 * np.arange(1, 2 * cycles + 1))
    metrics["probe/final"] = (steps[ends], accuracy[ends])
    return Logged(metrics, {"iterations_per_task": 200, "cycles": cycles, "head": head})


def test_measures_of_tasks_by_hand():
    # Two tasks of 200 iterations, two cycles; linear from `low` at 1 to `high` at 200.
    lows, highs = [0.5, 0.1, 0.2, 0.3], [0.9, 0.8, 0.8, 0.9]
    steps = np.array([0, *(s for task in range(4) for s in (200 * task + 1, 200 * task + 200))])
    accuracy = np.array([0.5, *(a for pair in zip(lows, highs, strict=True) for a in pair)])
    got = of_run(of_tasks(steps, accuracy, 2))
    first, last = (0.7 + 0.45) / 2, (0.5 + 0.6) / 2
    assert got["first_cycle"] == pytest.approx(first)
    assert got["last_cycle"] == pytest.approx(last)
    assert got["cycle_gain"] == pytest.approx(last - first)
    assert got["switch_fall"] == pytest.approx(np.mean([0.9 - 0.1, 0.8 - 0.2, 0.8 - 0.3]))
    # Mean over updates 1..100 is the value half-way: 49.5 of the 199 steps up.
    climb = [low + (high - low) * 49.5 / 199 for low, high in zip(lows[1:], highs[1:], strict=True)]
    assert got["recovery"] == pytest.approx(np.mean(climb))
    assert got["probe_first_cycle"] == pytest.approx(0.85) == got["probe_last_cycle"]
    assert (got["probe_gain"], got["probe_end"]) == (pytest.approx(0), 0.9)
    assert not any("/cycle" in name for name in got)
    once = of_run(of_tasks(steps[:5], accuracy[:5], 1))
    assert got.keys() - once.keys() == {"cycle_gain", "probe_gain"}
    one_task = Logged({"accuracy/current": (steps[:3], accuracy[:3]),
                       "accuracy/task_0": (steps[:3], accuracy[:3])},
                      {"iterations_per_task": 200, "cycles": 1})  # fmt: skip
    assert of_run(one_task).keys() == {"first_cycle", "last_cycle"}


def test_without_evaluations_after_a_switch_nothing_is_said_of_the_climb():
    steps = np.array([0, 200, 400, 600, 800])
    assert of_run(of_tasks(steps, steps / 1000, 2)).keys() == {
        "probe_first_cycle", "probe_last_cycle", "probe_gain", "probe_end"
    }  # fmt: skip


def test_what_is_forgotten_is_measured_with_a_head_a_task_alone():
    steps = np.array([0, 1, 200, 201, 400, 401, 600, 601, 800])
    got = of_run(of_tasks(steps, steps / 1000, 2, "per_task"))
    names = {name for name in got if "/cycle" in name}
    kinds = ("average_accuracy", "forgetting", "backward_transfer", "learning_accuracy")
    assert names == {f"{kind}/cycle_{i}" for kind in kinds for i in (1, 2)} | {
        "forward_transfer/cycle_1"
    }
    assert got["average_accuracy/cycle_2"] == pytest.approx(0.8)
    assert got["forgetting/cycle_1"] == pytest.approx(0.2 - 0.4)


def test_accuracy_matrix_takes_each_cycles_ends():
    steps = np.array([0, 1, 5, 6, 10, 11, 15, 16, 20])
    metrics = {f"accuracy/task_{j}": (steps, steps + 100.0 * j) for j in range(2)}
    logged = Logged(metrics, {"iterations_per_task": 5, "cycles": 2})
    assert measures.accuracy_matrix(logged, 0).tolist() == [[5, 105], [10, 110]]
    assert measures.accuracy_matrix(logged, 1).tolist() == [[15, 115], [20, 120]]
    # Task 1 comes first: rows and columns are in the order of the tasks.
    turned = replace(logged, config={**logged.config, "stream": {"order": [1, 0]}})
    assert measures.accuracy_matrix(turned, 0).tolist() == [[105, 5], [110, 10]]


@pytest.mark.parametrize("stream", ["one_vs_all", "fakes"])
def test_representation_forgetting_by_hand(stream):
    """Three tasks of five updates, two cycles: what a probe tells at its own turn, minus later."""
    told = {0: [0.9, 0.5, 0.6, 0.8, 0.7, 0.5], 1: [0.1, 0.8, 0.5, 0.4, 0.9, 0.8],
            2: [0.2, 0.3, 0.9, 0.5, 0.5, 0.9]}  # fmt: skip
    ends = np.arange(5, 31, 5)
    metrics = {f"probe/task_{j}": (ends, np.array(values)) for j, values in told.items()}
    metrics |= {f"accuracy/task_{j}": (ends, np.zeros(6)) for j in told}
    config = {"iterations_per_task": 5, "cycles": 2, "stream": {"name": stream}}
    known = {m.name: m for m in measures.known(metrics, config)}
    got = {f"cycle_{i}": known[f"representation_forgetting/cycle_{i}"].of(Logged(metrics, config))
           for i in (1, 2)}  # fmt: skip
    # The last task is at hand. Task 0: 0.9 to 0.6, then 0.8 to 0.5; task 1: 0.8 to 0.5, 0.9 to 0.8.
    assert got["cycle_1"] == pytest.approx((0.3 + 0.3) / 2)
    assert got["cycle_2"] == pytest.approx((0.3 + 0.1) / 2)
    omits = config | {"stream": {"name": stream, "omit": [1]}}
    assert not any("representation" in m.name for m in measures.known(metrics, omits))


def test_past_fakes_by_hand():
    of = {(0, 0): 0.9, (2, 0): 0.8, (4, 0): 0.1, (2, 2): 0.6, (4, 2): 0.5, (4, 4): 0.7,
          (6, 0): 0.0, (6, 2): 0.3, (6, 4): 0.6, (6, 6): 0.5}  # fmt: skip
    rows = [{"discriminator": t, "generator": s, "accuracy": a, "auc": 1 - a}
            for (t, s), a in of.items()]  # fmt: skip
    curve = (np.array([2, 4, 6]), np.zeros(3))
    got = of_run(Logged({"past_fakes/accuracy": curve}, {}, rows))
    # The untrained generator's fakes are no past worth remembering.
    assert got["past_fakes_accuracy"] == pytest.approx((0.3 + 0.6) / 2)
    assert got["past_fakes_accuracy_drop"] == pytest.approx((0.6 - 0.3 + 0.7 - 0.6) / 2)
    assert got["past_fakes_accuracy_forgetting"] == pytest.approx((0.6 - 0.3 + 0.7 - 0.6) / 2)
    assert len(got) == 3, "auc was not logged"
    assert of_run(Logged({"past_fakes/accuracy": curve}, {}, rows[:2])) == {}


def test_distances_are_told_from_other_measures_of_quality():
    steps = np.array([0, 5, 10])
    values = {"fid": [9.0, 3.0, 4.0], "fd_digits_cnn": [1.0, 7.0, 6.0], "kid": [3.0, 2.0, 1.0],
              "loss/d": [1.0, 1.0, 1.0]}  # fmt: skip
    metrics = {name: (steps, np.array(column)) for name, column in values.items()}
    best = {"fid_best": 3.0, "fd_digits_cnn_best": 6.0}  # the untrained generator does not count
    assert of_run(Logged(metrics, {})) == {"fid": 4.0, "fd_digits_cnn": 6.0, "kid": 1.0, **best}
    found = {m.name: m for m in measures.known(metrics, {})}
    assert {n for n, m in found.items() if m.subject == measures.DISTANCE} == {
        "fid", "fd_digits_cnn",
    }  # fmt: skip
    assert all(m.better == "lower" for m in found.values())


def test_the_shipped_runs_results_are_made_again_to_the_bit():
    from experiments.run.stored import run_folders

    reference = run_folders(PROJECT / "results/reference")
    for path in reference:
        record = json.loads((path / "run.json").read_text())
        metrics = {
            name: (np.array(m["steps"]), np.array(m["values"]))
            for name, m in json.loads((path / "metrics.json").read_text()).items()
        }
        rows = []
        if (path / "past_fakes.csv").exists():
            with (path / "past_fakes.csv").open() as file:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        config = json.loads((path / "config.json").read_text())
        got = of_run(Logged(metrics, config, rows))
        stored = record["result"]
        # Measures that came later; results that are read off pixels or another net, and no metric;
        # and what no longer applies, as the first planted runs still stored it.
        later = {name for name in got.keys() - stored.keys() if name.startswith(LATER)}
        no_metric = {"probe_pixels", "probe_final_layer_untrained"}
        gone = {"taught"} if config.get("plant_updates") else set()
        assert got.keys() - later == stored.keys() - no_metric - gone, path
        assert {name for name in got.keys() - later if got[name] != stored[name]} == set(), path
    assert len(reference) >= 60


def test_a_measure_reaches_runs_older_than_itself(monkeypatch):
    from experiments.run.stored import read_run
    from experiments.show.groups import Group
    from experiments.show.own_tables import measures as table

    late = Measure("late", "late bloom", "higher", measures.TASKS, "probe/final",
                   lambda logged: float(logged.metrics["probe/final"][1][-3:].mean()))  # fmt: skip
    monkeypatch.setattr(measures.tasks, "MEASURES", [*measures.tasks.MEASURES, late])
    run = read_run(PROJECT / "results/reference/sequential_tasks-cpu-vanilla-0")
    assert run.result["late"] == run.metrics["probe/final"][1][-3:].mean()
    assert Group([run], "").runs and "late bloom" in table([run])["measure"].tolist()


def test_a_stored_measure_that_no_longer_applies_goes():
    curve = {"probe/final_layer": (np.array([0, 4]), np.array([0.3, 0.5]))}
    stored = {"taught": 0.2, "final_layer_end": 0.1, "probe_pixels": 0.4}
    bare = measures.read_anew(stored, measures.Logged(curve, {}))
    assert bare == {"taught": pytest.approx(0.2), "final_layer_end": 0.5, "probe_pixels": 0.4}
    planted = measures.read_anew(stored, measures.Logged(curve, {"plant_updates": 5}))
    assert planted == {"final_layer_end": 0.5, "probe_pixels": 0.4}
