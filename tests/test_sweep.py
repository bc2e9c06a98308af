"""Sweeps with real worker processes."""

import json
import signal
import subprocess

import pytest
from conftest import ENVIRONMENT, command
from PIL import Image

from experiments import sequential_tasks
from experiments.run import locks, twins
from experiments.run.identity import identity
from experiments.run.stored import stored_runs
from experiments.sweeps import engine, plan, worker
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
iterations_per_task = 40
cycles = 1
width = 4
probe_images = 60
eval_images = 50
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
    (tmp_path / "plan.toml").write_text(plan.replace("= 40", "= 4000"))
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


def test_runs_of_the_cpu_leave_the_gpus_alone(monkeypatch):
    import torch

    def asked(*words):
        return plan.Planned("gan_probe", words, "", None, "to do", None, False)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    of_cpu = [asked("quick", "device=cpu", f"seed={i}") for i in range(3)]
    assert engine.gpus(of_cpu) == 0
    assert engine.gpus([*of_cpu, asked("quick", "seed=3")]) == 2
    assert engine.gpus([asked("device=cpu", "device='cuda'")]) == 2  # the last one holds


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


def test_workers_that_cannot_start_here_are_one_line(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    env = ENVIRONMENT | {"DASK_TEMPORARY_DIRECTORY": "/proc/nowhere"}
    done = command("sweep.py", "plan.toml", "--results-dir", "runs", cwd=tmp_path, env=env)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: --workers: Dask cannot start any here: ")


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
    # Those that a GPU made are there, too, unless a CPU's are asked for.
    for file in tmp_path.glob("runs/*/config.json"):
        file.write_text(file.read_text().replace('"cpu"', '"cuda"'))
    for asked, complete in (([], 4), (["device=cpu"], 0)):
        done = swept("plan.toml", "--dry-run", *asked, cwd=tmp_path)
        assert f"4 runs: {complete} complete" in done.stdout, done.stderr
    # One that it works on is in nobody's way; what it left unfinished is begun anew here.
    for number, status in ((1, "RUNNING"), (2, "INTERRUPTED")):
        file = tmp_path / f"runs/{number}/run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": status}))
    with locks.sole_user(tmp_path / "runs/1"):
        done = swept("plan.toml", "--dry-run", cwd=tmp_path)
    assert "4 runs: 2 complete, 0 unfinished, 1 to do, 1 running elsewhere" in done.stdout


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
