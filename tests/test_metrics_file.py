"""A run's metrics on the disk: cheap while it runs, one ordinary file when it has ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY, command

from experiments import sequential_tasks
from experiments.run import checkpoints, metrics_file, runner
from experiments.run.log import Log
from experiments.run.observer import RunFolder
from experiments.run.stored import Unreadable, read_metrics

SCRIPT = "sequential_tasks.py"


class Recording:
    """A run's log and its folder, without the run."""

    def __init__(self, folder):
        folder.mkdir()
        self.recorder = RunFolder(folder.parent)
        self.recorder.dir = str(folder)
        self.log = Log(self)

    def log_scalar(self, *_):
        """Sacred's, for other observers."""

    def evaluation(self, step, names):
        self.log.evaluation({name: step / 2 for name in names}, step)
        self.recorder.add_metrics(self.log.metrics)


def test_what_logging_writes_does_not_grow_with_what_is_logged(tmp_path):
    run, names = Recording(tmp_path / "1"), [f"accuracy/task_{i}" for i in range(1000)]
    log = tmp_path / "1/metrics.jsonl"
    sizes, of_checkpoints = [0], []
    for step in range(100, 140):
        run.evaluation(step, names)
        sizes.append(log.stat().st_size)
        checkpoints.save(tmp_path / "1", step, {"study": {}, **run.log.state()})
        of_checkpoints.append(checkpoints.stored(tmp_path / "1")[0].stat().st_size)
    assert not (tmp_path / "1/metrics.json").exists()
    grown = [b - a for a, b in pairwise(sizes)]
    assert max(grown) < 1.1 * min(grown)
    assert max(of_checkpoints) < 1.01 * min(of_checkpoints)
    assert checkpoints.load(tmp_path / "1")["metrics"] == run.log.metrics


def test_the_reader_reads_a_run_under_way(tmp_path):
    run = Recording(tmp_path / "1")
    with pytest.raises(Unreadable, match="cannot be read: No such file"):
        read_metrics(tmp_path / "1")
    for step in (0, 5, 9):
        run.evaluation(step, ["a"] if step else ["a", "b"])
    metrics = read_metrics(tmp_path / "1")
    assert metrics["a"][0].tolist() == [0, 5, 9] and metrics["a"][1].tolist() == [0, 2.5, 4.5]
    assert metrics["b"][0].tolist() == [0]
    whole = (tmp_path / "1/metrics.jsonl").read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    # Killed while it wrote; and a machine that went down, with a page that was never written.
    for end in (third[:-10], b"\0" * 50 + third[50:]):
        (tmp_path / "1/metrics.jsonl").write_bytes(first + second + end)
        assert read_metrics(tmp_path / "1")["a"][0].tolist() == [0, 5]
    for damaged in (b"[]\n", first + b"garbage\n" + third, first + third, second + third):
        (tmp_path / "1/metrics.jsonl").write_bytes(damaged)
        with pytest.raises(Unreadable):
            read_metrics(tmp_path / "1")
    (tmp_path / "1/metrics.jsonl").unlink()
    (tmp_path / "1/metrics.json").write_bytes(b"{}")  # as of one that logged nothing yet
    with pytest.raises(Unreadable, match=r"metrics\.json holds no metric"):
        read_metrics(tmp_path / "1")


def test_nothing_is_counted_twice_when_a_kill_comes_between_the_files(tmp_path):
    run = Recording(tmp_path / "1")
    for step in (0, 5, 9):
        run.evaluation(step, ["a"])
    log = (tmp_path / "1/metrics.jsonl").read_bytes()
    before = metrics_file.read(tmp_path / "1")
    metrics_file.write(tmp_path / "1", before)
    assert not (tmp_path / "1/metrics.jsonl").exists()
    assert json.loads((tmp_path / "1/metrics.json").read_bytes()) == before
    (tmp_path / "1/metrics.jsonl").write_bytes(log)
    assert metrics_file.read(tmp_path / "1") == before
    # Taken up again from before the last two, and killed as it began.
    metrics_file.write(tmp_path / "1", metrics_file.read_first(tmp_path / "1", {"a": 1}))
    (tmp_path / "1/metrics.jsonl").write_bytes(log)
    assert metrics_file.read(tmp_path / "1") == before


def test_a_checkpoint_that_counts_more_than_is_there_is_passed_over(tmp_path, capsys):
    run = Recording(tmp_path / "1")
    for step in (0, 5, 9):
        run.evaluation(step, ["a", "b"] if step else ["a"])
        checkpoints.save(tmp_path / "1", step, {"step": step, "study": {}, **run.log.state()})
    run.evaluation(12, ["a", "b", "c"])
    of_nine = checkpoints.load(tmp_path / "1")
    assert of_nine["step"] == 9 and capsys.readouterr().out == ""
    assert {name: m["steps"] for name, m in of_nine["metrics"].items()} == {
        "a": [0, 5, 9],
        "b": [5, 9],
    }
    lines = (tmp_path / "1/metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "1/metrics.jsonl").write_bytes(b"".join(lines[:2]))
    of_five = checkpoints.load(tmp_path / "1")
    assert of_five["step"] == 5 and of_five["metrics"]["b"]["values"] == [2.5]
    newest, before = checkpoints.stored(tmp_path / "1")
    said = "counts more metrics than can be read beside it; falling back"
    assert f"{newest} {said}" in capsys.readouterr().out
    for rest in (lines[0], b"garbage\n" + lines[1], b"".join(lines[1:])):
        (tmp_path / "1/metrics.jsonl").write_bytes(rest)
        assert checkpoints.load(tmp_path / "1") is None
        assert f"{before} {said}" in capsys.readouterr().out


def run_here(results, *words, options=()):
    """A tiny run in this process; its exit code."""
    tiny = [*TINY, "method=vanilla", "checkpoint_every=15", f"results_dir={results}"]
    with pytest.raises(SystemExit) as end:
        runner.main(sequential_tasks.STUDY, [SCRIPT, *options, "with", *tiny, *words])
    return end.value.code


def measured(run):
    stored = json.loads((run / "metrics.json").read_bytes())
    return {name: (m["steps"], m["values"]) for name, m in stored.items()}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A whole run, and the folders of results that a kill would have left, before and after each
    time it wrote metrics or a checkpoint."""
    folder, left = tmp_path_factory.mktemp("killed"), []

    def keep(run):
        left.append(folder / str(len(left)))
        shutil.copytree(run, left[-1] / "1")

    def kept_around(write):
        def writes(run, *rest):
            keep(run)
            write(run, *rest)
            keep(run)

        return writes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_file, "append", kept_around(metrics_file.append))
        patch.setattr(checkpoints, "save", kept_around(checkpoints.save))
        assert run_here(folder / "whole") == 0
    return folder / "whole/1", left


def checkpoints_at(results):
    return [checkpoints.step_of(path) for path in checkpoints.stored(results / "1")]


def test_killed_at_any_write_a_run_ends_the_same(killed, tmp_path, capsys):
    whole, left = killed
    steps = [checkpoints_at(results) for results in left]
    assert steps[:4] == [[], [], [], [0]] and steps[-2:] == [[15, 0], [30]]
    second = steps.index([15, 0])
    for i in (3, second - 1, second, second + 1, second + 2, len(left) - 2, len(left) - 1):
        results = shutil.copytree(left[i], tmp_path / str(i))
        assert run_here(results, "resume=1") == 0
        assert f"resumed at step {steps[i][0]}" in capsys.readouterr().out
        assert measured(results / "1") == measured(whole)
        assert not (results / "1/metrics.jsonl").exists()


def damaged_checkpoint(run):
    checkpoints.stored(run)[0].write_bytes(b"damaged")


def metrics_of_the_first_evaluation_alone(run):
    first = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[0]
    (run / "metrics.jsonl").write_bytes(first)


@pytest.mark.parametrize("damage", [damaged_checkpoint, metrics_of_the_first_evaluation_alone])
def test_a_run_goes_on_from_the_checkpoint_before(damage, killed, tmp_path, capsys):
    whole, left = killed
    results = shutil.copytree(left[-2], tmp_path / "runs")
    damage(results / "1")
    assert run_here(results, "resume=1") == 0
    out = capsys.readouterr().out
    assert "falling back to the checkpoint before it\n" in out and "resumed at step 0" in out
    assert measured(results / "1") == measured(whole)


def test_without_its_metrics_a_run_cannot_go_on(killed, tmp_path, capsys):
    results = shutil.copytree(killed[1][-2], tmp_path / "runs")
    (results / "1/metrics.jsonl").unlink()
    left = sorted(results.glob("*/*"))
    assert run_here(results, "resume=1") == 1
    out, err = capsys.readouterr()
    assert out.count("counts more metrics than can be read beside it") == 2
    assert err == f"error: resume: {results}/1 has no checkpoint that is whole\n"
    assert sorted(results.glob("*/*")) == left
    assert run_here(results, "resume=auto") == 0
    assert "no checkpoint of" in capsys.readouterr().out and (results / "2/metrics.json").exists()


def test_an_unobserved_run_takes_up_another_and_leaves_it_as_it_is(killed, tmp_path, capsys):
    results = shutil.copytree(killed[1][-2], tmp_path / "runs")
    before = {path: path.read_bytes() for path in results.glob("1/*")}
    assert run_here(results, "resume=1", options=["--unobserved"]) == 0
    assert "resumed at step 15" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in results.glob("1/*")} | before == before


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
