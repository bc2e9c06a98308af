"""A sweep's workers and scheduler: killed, stopped, late, or without this project."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PROJECT, command
from distributed import CancelledError
from distributed.comm import CommClosedError
from test_sweep import LONG_PLAN, PLAN, swept
from torture import metrics

from experiments.run import beside
from experiments.run.stored import stored_runs
from experiments.sweeps import engine, plan


def start_dask(folder, *arguments, code="", **environment):
    """A process of Dask's command line; code: what it runs before."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{code}\nfrom dask.__main__ import main; main()", *arguments],
        cwd=folder,
        # A task is given up with its first worker's death: the sweep must take it up again.
        env=ENVIRONMENT | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=beside.end_with_the_parent,  # of tests that were killed
    )


@pytest.fixture
def dask(tmp_path):
    """start_dask, of a scheduler to begin with, and its address."""
    started = []

    def start(*arguments, **options):
        started.append(start_dask(tmp_path, *arguments, **options))
        return started[-1]

    def scheduler(**options):
        file = tmp_path / "scheduler.json"
        words = ("--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        process = start("scheduler", *words, **options)
        wait_until(lambda: file.exists() and file.stat().st_size)
        return json.loads(file.read_text())["address"], process

    start.scheduler = scheduler
    yield start
    for process in started:
        process.kill()
        process.wait()


def a_worker(address):
    return ("worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny")


@pytest.fixture
def cluster(dask):
    """A Dask scheduler and two workers in processes of their own: (its address, processes)."""
    address, process = dask.scheduler()
    workers = {f"worker {i}": dask(*a_worker(address)) for i in range(2)}
    return address, {"scheduler": process} | workers


def wait_until(holds, seconds=300):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def runs_on(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def start_sweep(tmp_path, address):
    return subprocess.Popen(
        [
            *(sys.executable, str(PROJECT / "experiments/sweep.py"), "plan.toml"),
            *("--results-dir", "runs"),
            *(("--scheduler", address) if address else ("--workers", "2")),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_workers_run_is_resumed_elsewhere_and_a_lost_scheduler_is_said(cluster, tmp_path):
    address, processes = cluster
    (tmp_path / "plan.toml").write_text(LONG_PLAN)
    sweeping = start_sweep(tmp_path, address)
    wait_until(lambda: len({p.parent for p in tmp_path.glob("runs/*/checkpoint-[1-9]*")}) == 2)

    def told(words, file):
        return sum(path.read_text().count(words) for path in tmp_path.glob(f"runs/*/{file}"))

    # A run that is asked to stop, as when a cluster takes its node back, is not given up either.
    (run,) = children(processes["worker 1"].pid)
    os.kill(run, signal.SIGTERM)
    worker = processes["worker 0"]
    (run,) = children(worker.pid)
    worker.send_signal(signal.SIGKILL)
    wait_until(lambda: not runs_on(run))  # a run does not outlive its worker
    # The other worker takes up both; take its scheduler away when it has done the first.
    wait_until(lambda: told('"status": "COMPLETED"', "run.json"))
    processes["scheduler"].kill()
    out, errors = sweeping.communicate(timeout=120)
    assert sweeping.returncode == 1, out
    assert errors.count("\n") == 1 and f"the scheduler at {address} is lost" in errors, errors
    processes["worker 1"].kill()

    done = swept("plan.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert told("resumed at step", "cout.txt") >= 2
    runs = {run.seed: run for run in stored_runs(tmp_path / "runs")}
    assert sorted(runs) == [0, 1] and len(list((tmp_path / "runs").iterdir())) == 2
    whole = ["with", "quick", "method=rotation", "iterations_per_task=40", "cycles=1", "width=4"]
    whole += ["probe_images=60", "eval_images=50"]
    for seed in (0, 1):
        uninterrupted = [*whole, f"seed={seed}", "results_dir=whole"]
        assert command("sequential_tasks.py", *uninterrupted, cwd=tmp_path).returncode == 0
        assert metrics(runs[seed].folder) == metrics(tmp_path / f"whole/{seed + 1}")


class Ended:
    def __init__(self, error: Exception):
        self.error = error

    def result(self):
        raise self.error


def test_a_scheduler_lost_while_a_result_is_fetched_is_no_failure_of_the_run():
    """The connection may close just between that a run has ended and what it says."""
    for error in (CommClosedError("closed"), CancelledError("run")):
        with pytest.raises(type(error)):  # by which the sweep says that the scheduler is lost
            engine._outcome(Ended(error))
    assert engine._outcome(Ended(ValueError("no\nsense"))) == (1, "ValueError: no sense", 0.0)


@pytest.mark.parametrize("number,remote", [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_sweep_that_is_stopped_goes_on_from_there(tmp_path, number, remote, request):
    plan = LONG_PLAN.replace("[0, 1]", "[0, 1, 2]").replace("every = 10", "every = 10000")
    (tmp_path / "plan.toml").write_text(plan)
    address, _ = request.getfixturevalue("cluster") if remote else (None, None)
    sweeping = start_sweep(tmp_path, address)
    wait_until(lambda: len(list(tmp_path.glob("runs/*/checkpoint-0-*"))) == 2)
    if remote:
        sweeping.send_signal(number)
    else:
        os.killpg(sweeping.pid, number)  # a terminal's Ctrl-C is for its processes, too
    _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 128 + number
    assert errors == "stopping in good order; the same command goes on from there\n"
    # Both ended after a step, with a checkpoint that no interval made; the third was not begun.
    runs = sorted(tmp_path.glob("runs/*"))
    assert [json.loads((r / "run.json").read_text())["status"] for r in runs] == ["INTERRUPTED"] * 2
    assert all(list(run.glob("checkpoint-[1-9]*")) for run in runs)
    done = swept("plan.toml", cwd=tmp_path)
    assert done.returncode == 0 and "3 runs: 0 complete, 2 unfinished, 1 to do" in done.stdout
    assert len(stored_runs(tmp_path / "runs")) == 3


def test_the_plans_order_holds_where_a_worker_comes_late(tmp_path, monkeypatch):
    from distributed import LocalCluster

    began = tmp_path / "began"

    def run_of_a_second(study, words, folder, *_):
        with began.open("a") as file:
            file.write(f"{words[0]}\n")
        time.sleep(1)
        return 0, "", 1.0

    monkeypatch.setattr(engine, "bring_to_the_end", run_of_a_second)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(engine.logging, "disable", lambda *_: None)
    names = [f"seed={i}" for i in range(12)]
    runs = [plan.Planned("gan_probe", (n,), n, None, "to do", None, False) for n in names]
    with LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        late = threading.Timer(2.5, cluster.scale, [2])
        late.start()
        assert engine.sweep(runs, tmp_path, cluster.scheduler_address, None) == 0
        late.join()
        assert len(cluster.workers) == 2
    taken_up = began.read_text().split()
    assert sorted(taken_up) == sorted(names)
    # The two at work may begin in either order.
    assert all(abs(i - names.index(name)) <= 1 for i, name in enumerate(taken_up)), taken_up


def test_workers_that_dask_left_out_are_asked_for_again(monkeypatch):
    from distributed import Client, LocalCluster

    answer = Client.scheduler_info
    answers = iter([{"n_workers": 1, "workers": {}}])
    with LocalCluster(1, processes=False, dashboard_address=None) as cluster, Client(cluster) as c:
        monkeypatch.setattr(
            Client, "scheduler_info", lambda *a, **k: next(answers, None) or answer(*a, **k)
        )
        assert len(engine._workers(c)) == 1


@pytest.mark.parametrize("who", ["it", "its workers"])
def test_a_cluster_without_this_project_is_said(who, dask, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "other/experiments").mkdir(parents=True)
    (tmp_path / "other/experiments/__init__.py").write_text("")  # of somebody else
    without = {"PYTHONPATH": str(tmp_path / "other")}
    address, _ = dask.scheduler(**(without if who == "it" else {}))
    dask(*a_worker(address), **(without if who == "its workers" else {}))
    done = swept("plan.toml", "--scheduler", address, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: --scheduler: {address}: {who} cannot import this")
    assert re.search(r"\((cannot import name|No module named) .*'experiments", done.stderr)


def test_a_worker_without_this_project_beside_one_with_it_is_in_nobodys_way(dask, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.replace("lr = [1e-3, 1e30]", ""))
    (tmp_path / "other/experiments").mkdir(parents=True)
    (tmp_path / "other/experiments/__init__.py").write_text("")
    address, _ = dask.scheduler()
    dask(*a_worker(address))
    dask(*a_worker(address), PYTHONPATH=str(tmp_path / "other"))
    done = swept("plan.toml", "--scheduler", address, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {run.seed for run in stored_runs(tmp_path / "runs")} == {0, 1}


def test_another_version_of_dask_is_called_that(dask, tmp_path):
    """As 2023.5.0 answers, whose scheduler's identity() has no argument."""
    (tmp_path / "plan.toml").write_text(PLAN)
    older = (
        "from distributed import Scheduler as S; new = S.identity; S.identity = lambda s: new(s)"
    )
    address, _ = dask.scheduler(code=older)
    done = swept("plan.toml", "--scheduler", address, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "does not understand the Dask of this side" in done.stderr
