"""What is done by forked processes: the same, in order, and an error in one line where one dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import PROJECT
from experiments.show import drawings
from experiments.show.forked import each
from forgetting.errors import UserError

OLD = Path(__file__).with_name("runs_9afe66d")


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_in_order_and_with_what_cannot_be_pickled(processes):
    held = {n: lambda n=n: n**2 for n in range(4)}

    def function(n):
        time.sleep(0.2 * (n == 0))
        return held[n](), os.getpid()

    values, ids = zip(*each(function, range(4), processes), strict=True)

    assert values == (0, 1, 4, 9)
    assert (set(ids) == {os.getpid()}) == (processes == 1)


def test_an_error_is_the_callers():
    def function(n):
        raise UserError(f"{n} is none")

    with pytest.raises(UserError, match=r"^0 is none$"):
        list(each(function, [0, 1], 2))


def test_a_killed_process_is_one_line():
    with pytest.raises(UserError, match="a process was killed while it drew"):
        list(each(lambda _: os.kill(os.getpid(), signal.SIGKILL), [0, 1], 2))


def test_two_processes_draw_the_same_files(tmp_path):
    only = ["figure3", "quality", "figure1", "samples", "table3", "differences"]
    for name, processes in (("one", 1), ("two", 2), ("again", 2)):
        page = tmp_path / name / "report.html"
        drawings.draw([OLD], tmp_path / name, only, page, processes=processes)

    made = {
        name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two", "again")
    }
    assert len(made["one"]) == 4 * 2 + 2 * 3 + 1
    for name in ("two", "again"):
        assert [file for file, content in made["one"].items() if made[name][file] != content] == []


def test_ctrl_c_while_figures_are_drawn_leaves_no_process(tmp_path):
    script, out = PROJECT / "experiments/figures.py", tmp_path / "out"
    command = [sys.executable, script, "--runs", OLD, "--out", out]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    while not (out / "cures.png").exists():
        assert process.poll() is None
        time.sleep(0.1)

    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
