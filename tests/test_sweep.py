"""Sweeps with real worker processes."""

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
from PIL import Image
from torture import metrics

from experiments import sequential_tasks, sweep
from experiments.run import beside, locks, twins
from experiments.run.identity import identity
from experiments.run.stored import stored_runs
from experiments.sweeps import engine, plan, worker
from forgetting.errors import UserError
from forgetting.settings import flat

PLAN = """
study = "sequential_tasks"
[grid]
seed = [0, 1]
lr = [1e-3, 1e30]
[settings]
method = "vanilla"
iterations_per_task = 10
cycles = 1
width = 4
"""
LONG_PLAN = """
study = "sequential_tasks"
[grid]
seed = [0, 1]
[settings]
method = "rotation"
iterations_per_task = 120
cycles = 1
width = 4
checkpoint_every = 10
"""


def swept(*arguments, cwd):
    return command("sweep.py", *arguments, "--results-dir", "runs", cwd=cwd)


def test_a_plan_is_brought_to_its_end_and_what_fails_is_listed(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    done = swept("plan.toml", "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: --scheduler: no Dask scheduler")
    assert done.stderr.count("\n") == 1
    done = swept("plan.toml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "4 runs: 0 complete, 0 unfinished, 4 to do" in done.stdout
    assert done.stdout.count("lr=1e+30") == 2 and not (tmp_path / "runs").exists()
    assert done.stdout.count("width=4") == 1, "what all runs share is said once"
    done = swept("plan.toml", cwd=tmp_path)
    assert done.returncode == 1 and "2 runs brought to their end" in done.stdout, done.stderr
    failures = done.stderr.strip().splitlines()
    assert len(failures) == 2 and all("lr=1e+30" in line for line in failures)
    assert all("the run diverged: " in line for line in failures)
    assert sorted(run.seed for run in stored_runs(tmp_path / "runs")) == [0, 1]
    info = json.loads((tmp_path / "runs/1/info.json").read_text())
    assert info["threads"] == 1

    (tmp_path / "plan.toml").write_text(PLAN.replace("lr = [1e-3, 1e30]", "lr = [1e-3]"))
    done = swept("plan.toml", cwd=tmp_path)
    assert done.stdout == "2 runs: 2 complete, 0 unfinished, 0 to do\n" and done.returncode == 0
    (tmp_path / "plan.toml").write_text(PLAN.replace("1e-3, 1e30", "1e-3").replace("0, 1", "0, 9"))
    done = swept("plan.toml", "--dry-run", cwd=tmp_path)
    assert "2 runs: 1 complete, 0 unfinished, 1 to do" in done.stdout
    assert "time left with" in done.stdout and "unknown" not in done.stdout


def test_without_keep_going_a_failure_stops_the_others(tmp_path):
    plan = LONG_PLAN.replace("seed = [0, 1]", "seed = [0, 1]\nlr = [1e30, 1e-3]")
    (tmp_path / "plan.toml").write_text(plan.replace("= 120", "= 4000"))
    done = swept("plan.toml", "--no-keep-going", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("failed: ") == 1, done.stderr
    assert "0 runs brought to their end" in done.stdout
    assert "3 not: stopped by --no-keep-going" in done.stdout
    for file in tmp_path.glob("runs/*/run.json"):
        assert json.loads(file.read_text())["status"] in ("FAILED", "INTERRUPTED")


def test_a_run_that_starts_while_its_sweep_stops_is_stopped(monkeypatch):
    start = subprocess.Popen

    def start_too_late(*args, **kwargs):
        run = start(*args, **kwargs)
        worker.stop_runs("a sweep")
        return run

    monkeypatch.setattr(subprocess, "Popen", start_too_late)
    try:
        code, _ = worker._run(["sleep", "600"], ENVIRONMENT, "a sweep")
    finally:
        worker._stopped.clear()
    assert code == -signal.SIGTERM


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

    def resumed():
        output = "".join(path.read_text() for path in tmp_path.glob("runs/*/cout.txt"))
        return output.count("resumed at step")

    # A run that is asked to stop, as when a cluster takes its node back, is not given up either.
    (run,) = children(processes["worker 1"].pid)
    os.kill(run, signal.SIGTERM)
    worker = processes["worker 0"]
    (run,) = children(worker.pid)
    worker.send_signal(signal.SIGKILL)
    wait_until(lambda: not runs_on(run))  # a run does not outlive its worker
    # The other worker resumes both; take its scheduler away when it has begun with the second.
    wait_until(lambda: resumed() == 2)
    processes["scheduler"].kill()
    out, errors = sweeping.communicate(timeout=120)
    assert sweeping.returncode == 1, out
    assert errors.count("\n") == 1 and f"the scheduler at {address} is lost" in errors, errors
    processes["worker 1"].kill()

    done = swept("plan.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = {run.seed: run for run in stored_runs(tmp_path / "runs")}
    assert sorted(runs) == [0, 1] and len(list((tmp_path / "runs").iterdir())) == 2
    whole = ["with", "quick", "method=rotation", "iterations_per_task=120", "cycles=1", "width=4"]
    for seed in (0, 1):
        uninterrupted = [*whole, f"seed={seed}", "results_dir=whole"]
        assert command("sequential_tasks.py", *uninterrupted, cwd=tmp_path).returncode == 0
        assert metrics(runs[seed].folder) == metrics(tmp_path / f"whole/{seed + 1}")


@pytest.mark.parametrize("number,remote", [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_sweep_that_is_stopped_goes_on_from_there(tmp_path, number, remote, request):
    plan = LONG_PLAN.replace("[0, 1]", "[0, 1, 2]").replace("every = 10", "every = 10000")
    plan = plan.replace("iterations_per_task = 120", "iterations_per_task = 80")
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


def test_runs_of_the_cpu_leave_the_gpus_alone(monkeypatch):
    import torch

    def asked(*words):
        return plan.Planned("gan_probe", words, "", None, "to do", None, False)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    of_cpu = [asked("quick", "device=cpu", f"seed={i}") for i in range(3)]
    assert engine.gpus(of_cpu) == 0
    assert engine.gpus([*of_cpu, asked("quick", "seed=3")]) == 2
    assert engine.gpus([asked("device=cpu", "device='cuda'")]) == 2  # the last one holds


def test_workers_that_dask_left_out_are_asked_for_again(monkeypatch):
    from distributed import Client, LocalCluster

    answer = Client.scheduler_info
    answers = iter([{"n_workers": 1, "workers": {}}])
    with LocalCluster(1, processes=False, dashboard_address=None) as cluster, Client(cluster) as c:
        monkeypatch.setattr(
            Client, "scheduler_info", lambda *a, **k: next(answers, None) or answer(*a, **k)
        )
        assert len(engine._workers(c)) == 1


def test_a_workers_runs_have_a_gpu_each(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with (
        worker._free_one(worker._visible(2)) as first,
        worker._free_one(worker._visible(2)) as second,
    ):
        assert (first, second) == ("4", "6")
    with worker._free_one(worker._visible(2)) as again:
        assert again == "4"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert worker._visible(2) == ["0", "1"]


def test_the_time_left_is_of_what_runs_take():
    runs = [
        plan.Planned("gan_probe", (name,), name, None, "to do", seconds, False)
        for name, seconds in (("a", 60.0), ("b", None), ("c", 120.0))
    ]
    a, b, c = runs
    assert engine._seconds_left(runs, runs, {}, 2, 10) is None  # nothing tells of b
    # b is as long as a was; c may be the last to end, however many run at once.
    assert engine._seconds_left(runs, [b, c], {a: 80.0}, 1, 80) == 80 + 80 + 120 - 80
    assert engine._seconds_left(runs, [b, c], {a: 80.0}, 9, 80) == 120 - 80
    assert engine._seconds_left(runs, [b, c], {a: 80.0}, 0, 80) is None
    assert engine._seconds_left(runs, [b, c], {a: 0.0}, 1, 3) is None, "one failed at once"


def test_a_fresh_grid_is_estimated_by_the_runs_that_are_shipped():
    run = twins.REFERENCE / "sequential_tasks-cpu-vanilla-0"
    shipped = flat(json.loads((run / "config.json").read_text()))
    took = sum(json.loads((run / "info.json").read_text())["seconds"].values())
    asked = shipped | {"seed": 77, "dataset.label": "others"}
    wanted = identity(sequential_tasks.STUDY, asked, images="others")
    assert twins._shipped_seconds(wanted, ()) == pytest.approx(took)
    assert twins._shipped_seconds(wanted | {"width": 17}, ()) is None


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.toml").write_text('study = "chess"')
    (tmp_path / "list.toml").write_text('study = "gan_probe"\n[grid]\nseed = 3')
    (tmp_path / "grid.toml").write_text('study = "gan_probe"\ngrid = 3')
    (tmp_path / "path.toml").write_text('study = "gan_probe"\n[settings]\nresults_dir = "x"')
    (tmp_path / "broken.toml").write_text("study = ")
    (tmp_path / "arm.toml").write_text('study = "gan_probe"\n[grid]\nseed = [1]')
    twice = 'study = "gan_probe"\n[settings]\nseed = 1\n[grid]\nx = [{ "seed " = 2 }]'
    (tmp_path / "twice.toml").write_text(twice)
    (tmp_path / "root.toml").write_text('study = "gan_probe"\n[settings]\ndataset.root = 3')
    for arguments, line in (
        (["figure9"], "PLAN: there is no plan figure9 (No such file or directory); there are"),
        (["odd.toml"], "PLAN: study in odd.toml must be sequential_tasks or gan_probe"),
        (["list.toml"], "PLAN: seed in [grid] of list.toml must be a list of values"),
        (["broken.toml"], "PLAN: broken.toml is no TOML file"),
        (["arm.toml"], "model: name one for every run"),
        (["figure3", "lr=fast"], "lr: it must be a number above 0"),
        (["figure3", "resume=3"], "resume: a sweep sets it itself"),
        (["figure3", "seed=3"], "seed: the plan sets it; change it in a copy"),
        (["grid.toml"], "PLAN: [grid] of grid.toml must hold settings"),
        (["path.toml"], "results_dir: a sweep sets it itself"),
        (["figure3", "--results-dir", "odd.toml"], "--results-dir: "),
        (["figure3", "nonsense"], "nonsense: a setting is KEY=VALUE"),
        (["figure3", "--workers", "0"], "--workers: it must be 1 or more"),
        (["twice.toml"], "PLAN: twice.toml sets seed in two places"),
        (["root.toml", "model=cond", "dataset.name=image_folder"], "dataset.root: "),
        (["figure3", "seed =3"], "seed: the plan sets it; change it in a copy"),
        (["figure3", "preset=cpu"], "preset: choose one by --preset"),
        (["figure3", "cpu"], "cpu: a setting is KEY=VALUE; a preset is chosen by --preset cpu"),
        (["figure3", "--scheduler", ""], "--scheduler: it must be an address, as in tcp://"),
    ):
        monkeypatch.setattr(sys, "argv", ["sweep.py", "--results-dir", "runs", *arguments])
        with pytest.raises(SystemExit) as end:
            sweep.main()
        err = capsys.readouterr().err
        assert end.value.code == 1 and err.startswith(f"error: {line}"), err
        assert err.count("\n") == 1 and not (tmp_path / "runs").exists()


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


def test_workers_that_cannot_start_here_are_one_line(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    env = ENVIRONMENT | {"DASK_TEMPORARY_DIRECTORY": "/proc/nowhere"}
    done = command("sweep.py", "plan.toml", "--results-dir", "runs", cwd=tmp_path, env=env)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: --workers: Dask cannot start any here: ")


def test_the_shipped_plans_are_the_papers_grids():
    study, runs = plan.read_plan("figure3")
    assert study == "sequential_tasks" and len(runs) == 15
    assert len(plan.read_plan("figure2")[1]) == 15
    study, runs = plan.read_plan("table2")
    assert study == "gan_probe" and len(set(runs)) == 3 * 2 * 3 * 3 * 2
    assert runs[-1][2:4] == ("regularizer=gradient_penalty", "gradient_penalty_weight=10.0")
    with pytest.raises(UserError):
        plan.read_plan("figure9")


def test_a_plans_words_mean_on_a_command_line_what_they_mean_in_the_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text("""
        study = "sequential_tasks"
        [grid]
        dataset.label = ["12", "a name", "it's"]
        [settings]
        dataset.root = "images"
        method = "vanilla"
        """)
    _, runs = plan.read_plan("plan.toml")
    assert [words[-1] for words in runs] == [
        "dataset.label='12'",
        "dataset.label=a name",
        "dataset.label=it's",
    ]
    assert runs[0][0] == f"dataset.root={tmp_path}/images"


def test_what_is_there_is_known_by_its_images_and_comes_once_and_in_turn(
    folders_of_digits, tmp_path
):
    a, b = folders_of_digits
    (tmp_path / "plan.toml").write_text(f"""
        study = "sequential_tasks"
        [grid]
        seed = [0, 1]
        "dataset.root" = ["{a}", "{b}", "{a}"]
        [settings]
        dataset = {{ name = "image_folder", size = 8, label = "digits" }}
        method = "vanilla"
        iterations_per_task = 3
        cycles = 1
        width = 4
        eval_images = 20
        probe_images = 20
        """)
    done = swept("plan.toml", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0 and "4 runs: 0 complete" in done.stdout, done.stderr
    in_turn = [(run.seed, run.config["dataset"]["root"]) for run in stored_runs(tmp_path / "runs")]
    assert in_turn == [(seed, str(root)) for seed in (0, 1) for root in (a, b)]
    with locks.sole_user(tmp_path / "runs/1"):  # of a complete run nobody's
        done = swept("plan.toml", "--dry-run", cwd=tmp_path)
    assert "4 runs: 4 complete" in done.stdout


@pytest.fixture
def folders_of_digits(tmp_path, digits):
    """Zeros and ones as image files, twice, with other images."""
    for name, first in (("a", 0), ("b", 30)):
        for split, n in (("train", 30), ("test", 10)):
            for c in (0, 1):
                (tmp_path / name / split / str(c)).mkdir(parents=True)
                images = digits.train_images[digits.train_labels == c][first : first + n]
                for i, image in enumerate(images):
                    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                    picture.save(tmp_path / name / split / str(c) / f"{i}.png")
    return tmp_path / "a", tmp_path / "b"
