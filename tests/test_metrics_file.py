"""A run's metrics on the disk: cheap while it runs, one ordinary file when it has ended."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY, command

from experiments.run import metrics_file
from experiments.run.observer import RunFolder
from experiments.run.stored import Unreadable, read_metrics

SCRIPT = "sequential_tasks.py"


def beat(recorder, step, names):
    now = datetime(2024, 1, 1)
    new = {n: {"steps": [step], "values": [step / 2], "timestamps": [now]} for n in names}
    recorder.log_metrics(new, {})


def recording(folder, metrics=None):
    recorder = RunFolder(folder.parent, metrics)
    recorder.dir = str(folder)
    folder.mkdir(exist_ok=True)
    return recorder


def test_a_heartbeat_writes_what_is_new_alone(tmp_path):
    recorder, names = recording(tmp_path / "1"), [f"accuracy/task_{i}" for i in range(1000)]
    log = tmp_path / "1/metrics.jsonl"
    sizes = [0]
    for step in range(100, 140):
        beat(recorder, step, names)
        sizes.append(log.stat().st_size)
    assert not (tmp_path / "1/metrics.json").exists()
    grown = [b - a for a, b in pairwise(sizes)]
    assert max(grown) < 1.1 * min(grown)


def test_the_reader_reads_a_run_under_way(tmp_path):
    recorder = recording(tmp_path / "1")
    with pytest.raises(Unreadable, match="cannot be read: No such file"):
        read_metrics(tmp_path / "1")
    for step in (0, 5, 9):
        beat(recorder, step, ["a"] if step else ["a", "b"])
    metrics = read_metrics(tmp_path / "1")
    assert metrics["a"][0].tolist() == [0, 5, 9] and metrics["a"][1].tolist() == [0, 2.5, 4.5]
    assert metrics["b"][0].tolist() == [0]
    whole = (tmp_path / "1/metrics.jsonl").read_bytes()
    (tmp_path / "1/metrics.jsonl").write_bytes(whole[:-10])  # killed while it wrote
    assert read_metrics(tmp_path / "1")["a"][0].tolist() == [0, 5]
    (tmp_path / "1/metrics.jsonl").write_bytes(b"[]\n")
    with pytest.raises(Unreadable):
        read_metrics(tmp_path / "1")


def test_nothing_is_counted_twice_when_a_kill_comes_between_the_files(tmp_path):
    recorder = recording(tmp_path / "1")
    for step in (0, 5, 9):
        beat(recorder, step, ["a"])
    log = (tmp_path / "1/metrics.jsonl").read_bytes()
    before = metrics_file.read(tmp_path / "1")
    metrics_file.write(tmp_path / "1", before)
    assert not (tmp_path / "1/metrics.jsonl").exists()
    assert json.loads((tmp_path / "1/metrics.json").read_bytes()) == before
    (tmp_path / "1/metrics.jsonl").write_bytes(log)
    assert metrics_file.read(tmp_path / "1") == before


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_however_a_run_ends_its_metrics_are_whole(end, tmp_path):
    words = ["with", *TINY, "method=vanilla", "results_dir=runs", "checkpoint_every=10"]
    words += ["iterations_per_task=400", "eval_every=5", "-b", "0.1"]
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "experiments" / SCRIPT), *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    run = tmp_path / "runs/1"

    def steps():
        try:
            return read_metrics(run)["accuracy/current"][0].tolist()
        except Unreadable:
            return []

    deadline = time.monotonic() + 120
    while len(steps()) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    seen = steps()
    assert process.poll() is None and len(seen) >= 20  # it runs, and can be read
    assert not (run / "metrics.json").exists()
    os.kill(process.pid, end)
    process.wait()
    assert steps()[: len(seen)] == seen
    assert (run / "metrics.jsonl").exists() == (end == signal.SIGKILL)
    done = command(SCRIPT, *words, "resume=auto", "stop_after=1s", cwd=tmp_path)
    assert done.returncode == 75 and "resumed at step" in done.stdout, done.stderr
    assert steps() == sorted(set(steps())) and steps()[:3] == [0, 1, 5]
    assert not (run / "metrics.jsonl").exists()
    assert json.loads((run / "metrics.json").read_bytes())["accuracy/current"]["steps"] == steps()
