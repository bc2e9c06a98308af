"""The benchmark: two sides in turn, one of them in a process of its own."""

import json
import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from conftest import ENVIRONMENT, PROJECT

from experiments import bench as command
from experiments import benchmarks
from experiments.benchmarks import gpu, methods, runs, seeds
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
    step = partial(_step_into, str(tmp_path))
    with benchmarks.elsewhere(step, partial(benchmarks.with_our_allocator, step)) as theirs:
        times = benchmarks.in_turn(3, CPU, *theirs)
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert len(written) == 2 and str(os.getpid()) not in written
    assert set(written.values()) == {"...."} and [len(of_one) for of_one in times] == [3, 3]
    missing = pytest.raises(UserError, match="bench: nothing in")
    with missing, benchmarks.elsewhere(partial(_no_step, "here")):
        pass


def bench(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "experiments/bench.py"), *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)


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


@pytest.mark.parametrize(
    "words",
    [
        *(["--only", "speed"], ["--rounds", "0"], ["--rehearse", "--only", "sweeps"]),
        ["--only", "launches", "--device", "cpu"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_named(words):
    done = bench(*words)
    assert done.returncode == 1
    assert (
        done.stderr.startswith((f"error: {words[0]}: ", "error: --only: launches"))
        and done.stderr.count("\n") == 1
    )


# ------------------------------------------------------------------ a borrowed GPU


def test_what_a_gpu_left_is_merged_and_a_rehearsals_is_not(tmp_path):
    left, out = tmp_path / "left", tmp_path / "bench.json"
    left.mkdir()
    rows = [{"name": n, "device": d, "ratio": 1.0} for n, d in (("x", "cpu"), ("y", "H100"))]
    out.write_text(json.dumps({"rows": rows}))
    measured = {"name": "y", "device": "H100", "ratio": 7.0}
    (left / "bench.json").write_text(json.dumps({"rows": [measured]}))
    command.merge(["merge", str(left)], out)
    assert json.loads(out.read_text())["rows"] == [rows[0], measured]
    (left / "bench.json").write_text(
        json.dumps({"rows": [measured | {"device": benchmarks.REHEARSAL, "ratio": 8.0}]})
    )
    with pytest.raises(UserError, match="is a rehearsal's, whose figures mean nothing"):
        command.merge(["merge", str(left)], out)
    with pytest.raises(UserError, match="merge: there are no rows in"):
        command.merge(["merge", str(tmp_path / "none")], out)
    with pytest.raises(UserError, match="merge: it takes one folder"):
        command.merge(["merge"], out)
    assert json.loads(out.read_text())["rows"] == [rows[0], measured]


def test_the_parts_share_the_minutes():
    assert gpu.shares(8, [1, 2, 3, 4]) == {0: 60, 1: 100, 2: 130, 3: 110, 4: 80}
    few = gpu.shares(3, [2, 4])
    assert sum(few.values()) == pytest.approx(180) and few[2] / few[4] == pytest.approx(130 / 80)


FAKE_PARTS = """
import json, signal, subprocess, sys, time
part = int(sys.argv[1])
if part == 0:
    print(json.dumps({"gpu": "none"}))
if part == 1:  # it hangs, deaf to requests, and so does what it left in a session of its own
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hangs = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(hangs, start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(600)
if part == 2:
    sys.exit("no such thing")
if part == 3:
    print("all is well")
"""
CALL = """
import sys
from pathlib import Path
from experiments.benchmarks import gpu
seconds = {0: 30, 1: 1.5, 2: 30, 3: 30}
command = [sys.executable, str(Path("parts.py").absolute())]
print(gpu.run(Path("out").absolute(), seconds, None, True, command))
"""


def test_a_part_that_hangs_or_fails_leaves_the_others_alone(tmp_path):
    (tmp_path / "parts.py").write_text(FAKE_PARTS)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    words = [sys.executable, "-c", CALL]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True", done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["machine"] == {"gpu": "none"}
    ends = {part: (about["ended"], about["said"]) for part, about in report["parts"].items()}
    assert (tmp_path / "out/log.txt").read_text().count("---------- part") == 4
    hung = int(ends["1"][1])
    assert ends == {
        "1": ("stopped at its deadline", str(hung)),
        "2": ("failed", "no such thing"),
        "3": ("done", "all is well"),
    }
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)


def test_runs_are_many_as_can_be_through():
    now = time.monotonic()
    assert seeds.through_in_time([1000, 1000, 1000], 400, now + 6) == 2
    assert seeds.through_in_time([1000, 1000, 1000], 400, now + 8) == 3
    assert seeds.through_in_time([1000], 10, now + 8) == 0


FAKE_RUN = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[-2].partition("=")[2]) / "1"
if sys.argv[1] == "fails":
    sys.exit("no")
folder.mkdir(parents=True)
for step in range(0, 50, 10):
    (folder / f"checkpoint-{step}-0123456789abcdef.pt").touch()
    time.sleep(0.05 if sys.argv[1] == "quick" else 1)
"""


def test_runs_that_are_through_in_time_are_told_from_others(tmp_path):
    (tmp_path / "run.py").write_text(FAKE_RUN)
    commands = {
        name: [str(tmp_path / "run.py"), name.partition("-")[0]]
        for name in ("quick-1", "fails-1", "slow-1", "quick-2")
    }
    complete = seeds.complete_runs(commands, tmp_path, 50, time.monotonic() + 4)
    assert [folder.name for folder in complete] == ["quick-1", "quick-2"]


def test_the_command_for_a_gpu_can_be_rehearsed(tmp_path):
    words = ["make", "gpu", f"PYTHON={sys.executable}", f"PY={sys.executable}", "REHEARSE=1"]
    words += ["PARTS=3", f"OUT={tmp_path / 'out'}"]
    done = subprocess.run(words, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["log.txt", "report.json", "runs.tar.gz"]
    listed = subprocess.run(
        ["tar", "-tzf", str(tmp_path / "out/runs.tar.gz")], capture_output=True, text=True
    )
    for method in ("vanilla", "rotation", "replay"):  # each planted and not
        assert listed.stdout.count(f"./sequential_tasks-quick-{method}-1") >= 2
        assert f"./sequential_tasks-quick-{method}-1/metrics.json\n" in listed.stdout


@pytest.mark.parametrize(
    "words", [["OUT="], ["OUT=o", "PARTS=5"], ["OUT=o", "MINUTES=0"], ["OUT=o", "IMAGES=none"]]
)
def test_the_command_for_a_gpu_names_what_is_wrong(words, tmp_path):
    words = [word.replace("=o", f"={tmp_path}") for word in words]
    make = ["make", "gpu", f"PYTHON={sys.executable}", f"PY={sys.executable}", *words]
    done = subprocess.run(make, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.startswith(f"error: {words[-1].partition('=')[0]}: "), done.stderr


def test_the_gpus_benchmarks_can_be_rehearsed(tmp_path):
    out = tmp_path / "bench.json"
    only = ["--only", "launches,linear_probe"]
    done = bench("--rehearse", *only, "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {row["device"] for row in rows} == {benchmarks.REHEARSAL}
    shares = [row["ratio"] for row in rows if row["name"].endswith("computing, of its time")]
    # On a CPU an operation may be told within another.
    assert len(shares) == 8 and all(0 < share < 10 for share in shares)


def test_a_methods_cost_is_of_the_baselines(monkeypatch):
    monkeypatch.setattr(methods, "STEPS", 1)
    rows = {row["name"]: row for row in methods.methods(1, CPU, ["agem"])}
    what = (methods.TIME, methods.MEMORY)
    assert list(rows) == [methods.cost("agem", w, of) for of in ("opponents", "GAN") for w in what]
    assert "agem, opponents: a step's time, of vanilla's" in rows
    assert all(0.1 < row["ratio"] < 20 for row in rows.values())
