"""Commands end the same whoever listens to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY

ASCII = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
RUN = ["sequential_tasks.py", "with", *TINY, "method=vanilla", "results_dir=runs"]
LABEL = "dataset.label='Zügel → 猫'"


def shell(line: str, *words: str, cwd: Path, env=ENVIRONMENT) -> subprocess.CompletedProcess:
    """A line of bash in which "$@" is the script with its words; its exit code is the script's."""
    command = [sys.executable, str(PROJECT / "experiments" / words[0]), *words[1:]]
    line = f"{line}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line, "bash", *command], cwd=cwd, env=env, capture_output=True, timeout=240
    )


@pytest.mark.parametrize("line", ['"$@" | head -n 1', '"$@" >&- 2>&-', '"$@" >/dev/full 2>&1'])
def test_a_run_does_not_depend_on_who_listens(line, tmp_path):
    done = shell(line, *RUN, LABEL, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == b""
    assert json.loads((tmp_path / "runs/1/run.json").read_bytes())["status"] == "COMPLETED"
    assert "run 1: vanilla done" in (tmp_path / "runs/1/cout.txt").read_text(encoding="utf-8")


def test_what_the_encoding_lacks_is_an_escape(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"  # a path that is no text
    os.mkdir(folder)
    done = shell('"$@"', *RUN, LABEL, cwd=folder, env=ASCII)
    assert done.returncode == 0, done.stderr
    assert b"Z\\xfcgel \\u2192 \\u732b" in done.stdout
    folder = Path(os.fsdecode(folder))
    assert json.loads((folder / "runs/1/run.json").read_bytes())["status"] == "COMPLETED"


@pytest.mark.parametrize(
    "words,code",
    [
        (["sequential_tasks.py", "print_config"], 0),
        (["sequential_tasks.py", "with", "lr=fast"], 1),
        (["sequential_tasks.py", "--no-such-option"], 2),
        (["figures.py", "--runs", "runs", "--only", "table1,figure3", "--out", "out"], 0),
        (["sweep.py", "figure3", "--dry-run", "--results-dir", "runs"], 0),
        (["sweep.py", "nothing"], 1),
    ],
)
def test_exit_codes_stay_where_nobody_listens(words, code, tmp_path):
    (tmp_path / "runs").mkdir()
    done = shell('"$@" 2>&1 | true', *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (code, b"")


def test_ctrl_c_at_a_pipe_into_tee_leaves_a_run_to_go_on_with(tmp_path):
    """A terminal sends it to both, and tee is gone before the run says its last."""
    command = [sys.executable, str(PROJECT / "experiments/sequential_tasks.py")]
    command += ["with", "quick", "method=vanilla", "results_dir=runs"]
    line = '"$@" 2>&1 | (trap - INT; exec tee log); exit ${PIPESTATUS[0]}'
    process = subprocess.Popen(
        ["bash", "-c", f"trap : INT; {line}", "bash", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        process_group=0,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/1/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert json.loads((tmp_path / "runs/1/run.json").read_bytes())["status"] == "INTERRUPTED"


def test_a_sweep_does_not_depend_on_who_listens(tmp_path):
    plan = 'study = "sequential_tasks"\n[grid]\nmethod = ["vanilla"]\n[settings]\n'
    plan += "\n".join(word for word in TINY[1:-1]) + '\ndevice = "cpu"\n'
    (tmp_path / "plan.toml").write_text(plan)
    done = shell('"$@" 2>&1 | true', "sweep.py", "plan.toml", "--results-dir", "r", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((tmp_path / "r/1/run.json").read_bytes())["status"] == "COMPLETED"


@pytest.mark.parametrize(
    "ends,code,err",
    [
        ("pass", 0, ""),
        ("sys.exit(75)", 75, ""),
        ("sys.exit('why')", 1, "why\n"),
        ("raise KeyError('x')", 1, "KeyError: 'x'\n"),
    ],
)
def test_a_command_ends_as_python_does(ends, code, err):
    """With what libraries have asked for at the end, and all that was printed."""
    script = f"""
from experiments.run import output
import atexit, sys
atexit.register(print, "a library's end", end="")
def main():
    print("done", end=", ")
    {ends}
output.command(main)
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "done, a library's end")
    assert done.stderr.endswith(err)


def test_help_does_not_need_docstrings(tmp_path):
    """Python -OO drops them."""
    asked = """
import runpy, sys
from forgetting import methods
methods.describe()
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    else:
        sys.exit(f"{script}: no help")
"""
    scripts = sorted((PROJECT / "experiments").glob("[a-z]*.py"))
    scripts.append(PROJECT / "experiments/benchmarks/gpu.py")
    done = subprocess.run(
        [sys.executable, "-OO", "-c", asked, *map(str, scripts)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().count("usage:") >= len(scripts) >= 7
