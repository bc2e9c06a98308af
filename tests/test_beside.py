"""The arms of one command beside each other, by the command as a user types it."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY
from torture import metrics

from experiments import gan_probe, sequential_tasks
from experiments.run import beside, locks, progress, runner
from forgetting.errors import UserError

SCRIPT = str(PROJECT / "experiments/sequential_tasks.py")
UNSET = {key: value for key, value in ENVIRONMENT.items() if key != "OMP_NUM_THREADS"}
several_cores = pytest.mark.skipif(beside.cores() < 2, reason="there is but one core")


def start(*words, cwd, env=ENVIRONMENT, **options):
    command = [sys.executable, SCRIPT, "with", *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=env, **{**streams, **options})


def status(run):
    return json.loads((run / "run.json").read_text())["status"]


# ------------------------------------------------------------------ the real command


@several_cores
def test_what_is_stored_is_the_same_as_one_after_the_other(tmp_path):
    """And each has a bar on the terminal, below what is said."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    words = [*TINY, "stream.order=[3,1,4,0,5,9,2,6,8,7]"]
    both = start(*words, "results_dir=both", cwd=tmp_path, env=UNSET, stderr=its_end)
    os.close(its_end)
    shown = b""
    while content := _read(terminal):
        shown += content
    said, _ = both.communicate()
    assert both.returncode == 0, shown

    def one_core():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    single = start(*words, "results_dir=single", cwd=tmp_path, env=UNSET, preexec_fn=one_core)
    said_singly, complaints = single.communicate()
    assert (single.returncode, complaints) == (0, "")

    for run, arm in (("1", "vanilla"), ("2", "rotation")):  # ids are in the order of the arms
        one, other = tmp_path / "both" / run, tmp_path / "single" / run
        assert metrics(one) == metrics(other) and status(one) == "COMPLETED"
        for name, theirs in (("config.json", "results_dir"), ("info.json", "seconds")):
            mine, its = (json.loads((folder / name).read_text()) for folder in (one, other))
            assert mine.keys() == its.keys()
            assert all(mine[key] == its[key] for key in mine.keys() - {theirs}), name
        assert json.loads((one / "config.json").read_text())["method"] == arm
        assert json.loads((one / "info.json").read_text())["threads"] == 1  # nobody asked for it
        cout = (one / "cout.txt").read_text()
        assert cout.startswith(f"run {run}: {arm}, seed 0") and cout.count("\n") == 2
        bars = re.findall(rf"run {run}: {arm}: +(\d+)%\|", shown.decode())
        assert len(bars) > 2 and bars[-1] == "100", shown.decode()

    def without_times(text):
        text = re.sub(r"in \d+ s", "", text.replace("in both/", "in single/"))
        return sorted(text.splitlines())

    assert without_times(said) == without_times(said_singly)
    assert said.startswith("preset quick on ") and said.count("preset") == 1


def _read(terminal) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how a terminal ends
        return b""


@several_cores
@pytest.mark.parametrize(
    "number,code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_one_signal_is_for_all(number, code, tmp_path):
    words = ["quick", "results_dir=r", "checkpoint_every=5"]
    process = start(*words, cwd=tmp_path, process_group=0)
    deadline = time.monotonic() + 600
    folders = [tmp_path / "r" / run for run in "12"]
    while not all(list(folder.glob("checkpoint-[1-9]*")) for folder in folders):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        if number == signal.SIGTERM:  # as a cluster does: to every process
            for arm in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(arm), number)
        process.send_signal(number)
    out, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (code, "")
    if number == signal.SIGKILL:
        for folder in folders:  # nobody works on them any more
            with locks.sole_user(folder, wait=True):
                assert status(folder) == "RUNNING"
        return
    for folder in folders:
        (step,) = re.findall(
            rf"interrupted at step (\d+); go on with: .* with resume={folder.name} results_dir=r",
            out,
        )
        assert list(folder.glob(f"checkpoint-{step}-*.pt")) and status(folder) == "INTERRUPTED"
    if number == signal.SIGINT:
        again = start(*words, "resume=auto", "stop_after=0.01s", cwd=tmp_path)
        out, errors = again.communicate(timeout=600)
        assert (again.returncode, errors) == (75, "")
        assert out.count("resumed at step") == out.count("interrupted at step") == 2
        assert len(list((tmp_path / "r").iterdir())) == 2


@several_cores
def test_an_arm_that_fails_leaves_the_others_alone(tmp_path):
    words = [*TINY, "rotation_weight=1e300", "results_dir=r"]  # infinite in single precision
    process = start(*words, cwd=tmp_path)
    out, errors = process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(r"error: rotation: the run diverged: .* at step \d+; .*\n", errors)
    assert "run 1: vanilla done" in out
    assert [status(tmp_path / "r" / run) for run in "12"] == ["COMPLETED", "FAILED"]


# ------------------------------------------------------------------ its parts


def arm_by(code: str, name: str = "it") -> dict:
    """What runs beside others in place of an arm."""
    return {name: ["-c", f"import json, os, signal, sys, time\n{code}"]}


def test_an_arm_begins_when_the_one_before_it_has_begun_or_ended(tmp_path, capfd):
    tell = "os.write(int(os.environ['FORGETTING_BESIDE'].split()[0]), b'[\"x\"]\\n')"
    waits = "sys.stdin.read(); print(len(os.listdir('.')), flush=True)"
    first = arm_by(f"sys.stdin.read(); open('a', 'w'); {tell}; time.sleep(1); open('b', 'w')", "1")
    ends = arm_by(f"{waits}; open('c', 'w')", "2")
    last = arm_by(waits, "3")
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert beside.run_beside({**first, **ends, **last}, 1) == 0
    finally:
        os.chdir(before)
    assert capfd.readouterr().out == "1\n2\n"


@pytest.mark.parametrize(
    "code,exit_code,says",
    [
        ("sys.exit(75)", 75, ""),
        ("sys.exit('error: no good')", 1, "error: it: no good\n"),
        ("sys.exit(143)", 143, ""),  # somebody stopped that one
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "error: it: killed by signal 9\n"),
        ("print('no end of line', end=''); sys.stderr.write('nor here')", 0, "nor here\n"),
    ],
)
def test_how_an_arm_ends_is_how_all_end(code, exit_code, says, capfd):
    assert beside.run_beside({**arm_by("", "well"), **arm_by(code)}, 1) == exit_code
    assert capfd.readouterr().err == says


@pytest.mark.parametrize(
    "code,sent,exit_code",
    [
        ("signal.signal(15, lambda *_: sys.exit(143))", [15], 143),
        ("signal.signal(15, lambda *_: sys.exit(143))", [2], 130),
        ("signal.signal(15, lambda *_: os._exit(0))", [2], 0),  # it was at its end
        ("", [15], 143),  # nothing was begun
        ("signal.signal(15, signal.SIG_IGN)", [15, 15], 130),  # asked again, at once
    ],
)
def test_a_signal_is_passed_on(code, sent, exit_code):
    """To a process that is told to end while its arms work."""
    own = f"""
import json, os, signal, sys, threading, time
from experiments.run import beside
def ask():
    for number in {sent}:
        time.sleep(0.5)
        os.kill(os.getpid(), number)
arm = {f"import os, signal, sys, time; {code or 'pass'}; print(1, flush=True); time.sleep(60)"!r}
beside._Arm._said = lambda *_: threading.Thread(target=ask).start()
sys.exit(beside.run_beside({{"it": ["-c", arm]}}, 1))
"""
    command = [sys.executable, "-c", own]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (exit_code, "")


def test_arms_share_the_memory_for_images(monkeypatch):
    from experiments.run import resolve

    settings = {"dataset.memory_mb": None, "device": "cpu"}
    whole = resolve._memory_for_images(settings, True)
    monkeypatch.setenv(progress.TOLD, "1 2")
    assert resolve._memory_for_images(settings, True) == whole // 2
    assert resolve._memory_for_images({**settings, "dataset.memory_mb": 10}, True) == 5 * 10**6


# ------------------------------------------------------------------ whether, and by which commands


def options(*words, study=sequential_tasks.STUDY):
    return runner._parse(study.experiment, ["x.py", *words])


@pytest.mark.parametrize(
    "words", [[], ["with", "quick"], ["-u"], ["-F", "r"], ["-c", "with", "with", "method=None"]]
)
def test_each_arm_has_the_same_command_with_its_name(words):
    study = sequential_tasks.STUDY
    commands = beside.commands(study, ["x.py", *words], options(*words))
    assert list(commands) == list(study.default_arms)
    plain = options(*words)
    for arm, (script, *own) in commands.items():
        mine = options(*own)
        updates, presets = runner._read_updates(study, mine)
        assert script == SCRIPT and updates.pop("method") == arm
        assert presets == runner._read_updates(study, plain)[1]
        same = {"--unobserved", "--comment"}
        assert {key: mine[key] for key in same} == {key: plain[key] for key in same}


@pytest.mark.parametrize(
    "changed,cores,threads",
    [
        ({}, 2, 1),
        ({}, 1, 0),
        ({"width": 512}, 8, 4),  # eight threads by itself, a share for each of two
        ({"width": 512}, 2, 1),
        ({"device": "cuda"}, 8, 0),
    ],
)
def test_arms_run_beside_each_other_where_each_has_its_cores(changed, cores, threads, monkeypatch):
    from experiments.run import process

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(process, "_usual", cores)
    monkeypatch.setattr(process, "cores", lambda: cores)
    settings = {"device": "cpu", "batch_size": 64, "dataset.size": 8, "width": 32, **changed}
    assert process.threads_beside(settings, settings["width"], 2) == threads
    if cores == 2:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")  # is kept, and both cores are one arm's
        assert process.threads_beside(settings, settings["width"], 2) == 0


def test_the_threads_go_by_the_widest_net(monkeypatch):
    from experiments.run import process

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(process, "_usual", 64)

    def threads(width, side, batch=64):
        settings = {"device": "cpu", "batch_size": batch, "dataset.size": side}
        return process.threads(settings, width)

    assert threads(32, 8) == 1 and threads(128, 32) == 64
    counts = [threads(width, 32) for width in (4, 8, 16, 32, 64, 128)]
    assert counts == sorted(counts) and counts[0] == 1
    assert threads(16, 32, batch=512) > threads(16, 32)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert threads(32, 8) == 64
    widths = {"width": 512, "discriminator_width": 8, "generator_width": 16}
    widest = gan_probe.STUDY.widest
    assert widest({**widths, "model": "ssgan"}) == 16
    assert widest({**widths, "model": "rotation_only"}) == 8


def test_the_benchmark_of_threads_tells_an_idle_machine_from_a_busy_one(monkeypatch):
    import torch

    from experiments.benchmarks import threads

    monkeypatch.setattr(threads, "SIZES", (("sequential_tasks", "rotation", ((4, 8),)),))
    monkeypatch.setattr(threads, "ENOUGH", 0.0)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    idle, busy = threads.threads(2, torch.device("cpu"))
    assert idle["name"].startswith("rotation 4 at 8 px, 5.9e+05: two threads")
    assert busy["name"].endswith("beside a busy process") and busy["ratio"] > 0
    assert torch.get_num_threads() == 1  # as before
    monkeypatch.setattr(threads, "cores", lambda: 1)
    with pytest.raises(UserError, match="but one core"):
        next(threads.threads(1, torch.device("cpu")))
