"""The benchmark: two sides in turn, one of them in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import PROJECT

from experiments import bench as command
from experiments import benchmarks
from experiments.benchmarks import runs
from forgetting.errors import UserError

CPU = torch.device("cpu")


def test_both_sides_are_timed_in_turn_after_a_call_that_does_not_count():
    calls = []
    times = benchmarks.in_turn(2, CPU, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert [len(of_one) for of_one in times] == [2, 2]


def _step_into(folder: str):
    def step():
        with open(f"{folder}/{os.getpid()}", "a") as file:
            file.write(".")

    return step


def _no_step(folder: str):
    raise UserError(f"bench: nothing in {folder}")


def test_the_other_side_runs_in_a_process_of_its_own(tmp_path):
    with benchmarks.elsewhere(_step_into, str(tmp_path)) as theirs:
        (times,) = benchmarks.in_turn(3, CPU, theirs)
    (written,) = tmp_path.iterdir()
    assert written.name != str(os.getpid())
    assert written.read_text() == "...." and len(times) == 3
    missing = pytest.raises(UserError, match="bench: nothing in")
    with missing, benchmarks.elsewhere(_no_step, "here"):
        pass


def bench(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "experiments/bench.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_keeps_the_rows_that_it_does_not_measure(tmp_path):
    out = tmp_path / "bench.json"
    old = {"name": "x", "device": "cpu", "ratio": 1.0, "spread": [1.0, 1.0], "aim": "-"}
    out.write_text(json.dumps({"rows": [old]}))
    done = bench("--only", "checkpoint_cost", "--rounds", "1", "--device", "cpu", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert rows[0] == old
    names = [row["name"] for row in rows[1:]]
    assert names == [f"{s}: checkpoints, of training" for s in ("sequential_tasks", "gan_probe")]
    assert all(row["name"] in done.stdout and 0 < row["ratio"] < 1 for row in rows[1:])


def test_all_of_them_replace_this_devices_rows_and_one_that_fails_is_named(tmp_path, monkeypatch):
    def fails(rounds, device):
        raise UserError("bench: no network")

    def measures(rounds, device):
        yield benchmarks.row("fast", "cpu", [2.0] * rounds, "-")

    monkeypatch.setattr(command, "NAMES", ("draw_many", "sweeps"))
    monkeypatch.setattr(runs, "draw_many", fails)
    monkeypatch.setattr(runs, "sweeps", measures)
    out = tmp_path / "bench.json"
    old = [{"name": "x", "device": device, "ratio": 1.0} for device in ("cpu", "NVIDIA H200")]
    out.write_text(json.dumps({"rows": old}))
    with pytest.raises(UserError, match="not measured to the end: draw_many"):
        command.measure([], 3, "cpu", out)
    rows = json.loads(out.read_text())["rows"]
    assert [(r["name"], r["device"], r["ratio"]) for r in rows] == [
        ("x", "NVIDIA H200", 1.0),
        ("fast", "cpu", 2.0),
    ]


@pytest.mark.parametrize("words", [["--only", "speed"], ["--rounds", "0"]])
def test_a_bad_option_is_named(words):
    done = bench(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {words[0]}: ") and done.stderr.count("\n") == 1
