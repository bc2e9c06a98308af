"""The commands as a user types them, on real digits."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ENVIRONMENT, PROJECT, TINY, command
from torture import every_line, refuse_all

from experiments import gan_probe, sequential_tasks
from experiments.run import exit_codes, locks, process, runner
from experiments.run.stored import stored_runs

SCRIPT = "sequential_tasks.py"


def in_process(capsys, *arguments):
    """The same without a process of its own: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as end:
        runner.main(sequential_tasks.STUDY, [SCRIPT, *arguments])
    out, err = capsys.readouterr()
    return end.value.code, out, err


def metrics(run):
    stored = json.loads((run / "metrics.json").read_text())
    return {name: (m["steps"], m["values"]) for name, m in stored.items()}


@pytest.fixture(scope="module")
def both_arms(tmp_path_factory):
    """`with quick`, at 60 iterations a task; run from an empty folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a newcomer")
    words = ["with", "quick", "iterations_per_task=60", "results_dir=my runs"]
    done = command(SCRIPT, *words, cwd=folder, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return folder / "my runs", done


def test_the_classifier_falls_at_a_switch_and_recovers(both_arms):
    folder, done = both_arms
    assert "preset quick on handwritten digits" in done.stdout and "with: with quick" in done.stdout
    assert done.stderr == ""  # not a terminal: no progress bar, no warning of any library
    runs = {run.arm: run for run in stored_runs(folder)}
    assert runs.keys() == {"vanilla", "rotation"}
    for run in runs.values():
        steps, accuracy = run.metrics["accuracy/current"]
        at = dict(zip(steps, accuracy, strict=True))
        assert steps[0] == 0 and steps[-1] == 1200 and len(run.metrics["probe/final"][0]) == 20
        ends = np.array([at[s] for s in range(60, 1200, 60)])
        starts = np.array([at[s + 1] for s in range(60, 1200, 60)])
        next_ends = np.array([at[s] for s in range(120, 1201, 60)])
        assert (ends - starts).mean() > 0.2
        assert (next_ends - starts).mean() > 0.2
        assert ends[0] > 0.9
        assert run.result["switch_fall"] == pytest.approx((ends - starts).mean())
        for task in range(10):
            assert np.array_equal(run.metrics[f"accuracy/task_{task}"][0], steps)
    assert runs["rotation"].metrics["accuracy/rotation"][1][-1] > 0.6
    assert "accuracy/rotation" not in runs["vanilla"].metrics


def test_a_run_is_an_ordinary_sacred_run(both_arms):
    folder, _ = both_arms
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]
    record = json.loads((folder / "1" / "run.json").read_text())
    config = json.loads((folder / "1" / "config.json").read_text())
    assert record["status"] == "COMPLETED" and record["result"]["cycle_gain"] is not None
    assert "auto" not in (config["device"], config["precision"], config["dataset"]["name"])
    assert config["dataset"]["label"] == "handwritten digits (scikit-learn)"
    assert config["preset"] == "quick" and config["method"] == "vanilla"
    assert "run 1: vanilla" in (folder / "1" / "cout.txt").read_text()
    info = json.loads((folder / "1" / "info.json").read_text())
    assert info["data"]["train_images"] + info["data"]["test_images"] == 1797
    assert info["seconds"]["training"] > 0


def test_one_seed_repeats_to_the_bit_and_two_differ(tmp_path, capsys):
    arguments = ["with", *TINY, "method=rotation", f"results_dir={tmp_path}"]
    for seed in (3, 3, 4):
        assert in_process(capsys, *arguments, f"seed={seed}")[0] == 0
    first, again, other = (metrics(tmp_path / str(i)) for i in (1, 2, 3))
    assert first == again
    assert first["accuracy/current"] != other["accuracy/current"]


def test_killed_at_any_moment_it_resumes_to_the_bit(tmp_path):
    arguments = ["with", "quick", "iterations_per_task=20", "cycles=1", "method=rotation"]
    arguments += ["checkpoint_every=7", "device=cpu"]
    assert command(SCRIPT, *arguments, "results_dir=whole", cwd=tmp_path).returncode == 0
    arguments += ["results_dir=runs"]
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "experiments" / SCRIPT), *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/1/checkpoint-[1-9]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / "runs/1/run.json").read_text())["status"] == "RUNNING"
    # Two threads add up in another order than one: the resumed run takes as many as it had.
    done = command(
        SCRIPT, *arguments, "resume=auto", cwd=tmp_path, env={**ENVIRONMENT, "OMP_NUM_THREADS": "2"}
    )
    assert re.search(r"resumed at step [1-9]", done.stdout), done.stderr
    assert metrics(tmp_path / "runs/1") == metrics(tmp_path / "whole/1")
    once_more = command(SCRIPT, *arguments, "resume=auto", cwd=tmp_path)
    assert once_more.returncode == 0 and "rotation is complete already" in once_more.stdout
    assert len(list(tmp_path.glob("runs/*"))) == 1
    again = command(SCRIPT, "with", "resume=1", "results_dir=runs", cwd=tmp_path)
    assert again.returncode == 1 and "is complete already" in again.stderr


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_in_good_order(tmp_path, number, code):
    words = ["with", "quick", "method=vanilla", "results_dir=r"]
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "experiments" / SCRIPT), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("r/1/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == code
    step = int(
        re.search(r"interrupted at step (\d+); go on with: .* with resume=1 results_dir=r", out)[1]
    )
    assert step > 0 and list(tmp_path.glob(f"r/1/checkpoint-{step}-*.pt"))
    assert json.loads((tmp_path / "r/1/run.json").read_text())["status"] == "INTERRUPTED"


def test_a_slice_by_the_clock_and_other_settings_refused(tmp_path, capsys):
    here = f"results_dir={tmp_path}"
    code, out, _ = in_process(capsys, "with", "quick", "stop_after=0.01s", "method=augment", here)
    assert code == exit_codes.TRY_LATER and "with resume=1 results_dir=" in out
    code, _, err = in_process(capsys, "with", "resume=1", "lr=0.5", here)
    assert code == 1 and "lr (stored 0.001, asked 0.5)" in err
    code, _, err = in_process(capsys, "with", "resume=9", here)
    assert code == 1 and "no readable run" in err
    code, _, err = in_process(capsys, "with", "resume=1", "rotated_images=None", here)
    assert code == 1 and "rotated_images" in err
    with locks.sole_user(tmp_path / "1"):
        code, _, err = in_process(capsys, "with", "resume=1", here)
        assert code == 1 and "another process is working on" in err
        same = ["with", "quick", "method=augment", "resume=auto", here]
        code, out, _ = in_process(capsys, *same)
        assert code == exit_codes.TRY_LATER and "augment is held by another process" in out
    for checkpoint in tmp_path.glob("1/checkpoint-*"):
        checkpoint.write_bytes(b"damaged")
    code, _, err = in_process(capsys, "with", "resume=1", here)
    assert code == 1 and "no checkpoint that is whole" in err
    code, out, _ = in_process(capsys, *same, "stop_after=0.01s")  # auto begins anew
    assert code == exit_codes.TRY_LATER and "1 is whole; passed over" in out
    assert re.search("go on with: .* with resume=2 results_dir=", out)


@pytest.mark.parametrize("name", ["my runs", "2024", "it's", "None"])
def test_a_hint_works_as_it_is_typed(name, tmp_path):
    begin = ["with", *TINY, "method=vanilla", f"results_dir={name!r}", "stop_after=0.01s"]
    first = command(SCRIPT, *begin, cwd=tmp_path)
    hint = first.stdout.rsplit("; go on with: ", 1)[1].strip()
    done = subprocess.run(
        f"{hint} stop_after=None",
        shell=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert "resumed at step" in done.stdout and f"stored in {name}/1" in done.stdout, done.stderr


def test_what_has_no_checkpoint_is_not_offered(tmp_path, capsys, monkeypatch):
    """A disk that is full from the start."""
    from experiments.run import checkpoints

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_atomically", full)
    here = ["with", *TINY, "method=vanilla", f"results_dir={tmp_path}"]
    code, _, err = in_process(capsys, *here)
    assert code == 1 and err.endswith("No space left on device; make room\n")


def test_metrics_stand_before_a_run_counts_as_complete(tmp_path, capsys, monkeypatch):
    """Whatever becomes of Sacred's heartbeats: here the last one fails, and there is no other."""
    from experiments.run.observer import RunFolder

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = ["with", *TINY, "method=vanilla", f"results_dir={tmp_path}"]
    with monkeypatch.context() as failing:
        failing.setattr(RunFolder, "heartbeat_event", full)
        in_process(capsys, *arguments)
    assert in_process(capsys, *arguments)[0] == 0
    assert metrics(tmp_path / "1") == metrics(tmp_path / "2")
    assert json.loads((tmp_path / "1/info.json").read_text())["seconds"]


def test_a_heartbeat_that_fails_ends_the_run_and_says_so(tmp_path, capsys, monkeypatch):
    from experiments.run.observer import RunFolder

    calls = []

    def full_later(self):
        calls.append(self)
        if len(calls) > 3:  # the run has begun
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "save_cout", full_later)
    here = ["with", "quick", "method=vanilla", f"results_dir={tmp_path}", "-b", "0.1"]
    code, _, err = in_process(capsys, *here)
    assert code == 1 and re.search("left on device; make room; go on with: .* with resume=1", err)
    assert json.loads((tmp_path / "1/run.json").read_text())["status"] != "COMPLETED"


def test_sacreds_own_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = in_process(capsys, "print_config", "with", "cpu", "lr=0.01")
    assert code == 0 and "lr = 0.01" in out and "# Adam's learning rate" in out
    for key in sequential_tasks.SETTINGS:
        assert re.search(rf"\b{key.rsplit('.', maxsplit=1)[-1]} = .*# \w", out), (
            f"{key} undocumented"
        )
    assert in_process(capsys, "print_named_configs")[0] == 0
    code, out, _ = in_process(capsys, "--help")
    assert code == 0 and "--unobserved" in out
    assert not list(tmp_path.iterdir())

    tiny = ["with", *TINY, "method=vanilla"]
    code, out, _ = in_process(capsys, "--unobserved", "-p", *tiny)
    assert "iterations_per_task = 3" in out
    assert code == 0 and not list(tmp_path.iterdir())
    assert in_process(capsys, "-F", "elsewhere", "--name", "mine", "-c", "a word", *tiny)[0] == 0
    record = json.loads((tmp_path / "elsewhere/1/run.json").read_text())
    assert record["experiment"]["name"] == "mine" and record["meta"]["comment"] == "a word"
    assert [p.name for p in tmp_path.iterdir()] == ["elsewhere"]
    assert in_process(capsys, "-F", "elsewhere", "--id", "mine", *tiny)[0] == 0
    code, _, err = in_process(capsys, "-F", "elsewhere", "--id", "mine", *tiny)
    assert code == 1 and "there is a run elsewhere/mine already" in err
    code, _, err = in_process(capsys, "--id", "mine", "with", "quick")
    assert code == 1 and "--id: it names one run; set method, too" in err
    code, _, err = in_process(capsys, "--id", "20_1", *tiny)
    assert code == 1 and "--id: it must be a number, or" in err


def test_an_end_asked_for_in_an_arms_last_step_does_not_start_the_next(
    tmp_path, capsys, monkeypatch
):
    summary = sequential_tasks_study().summary

    def interrupt(self, logged):
        os.kill(os.getpid(), signal.SIGTERM)
        return summary(self, logged)

    monkeypatch.setattr(sequential_tasks_study(), "summary", interrupt)
    code, out, _ = in_process(capsys, "with", *TINY, f"results_dir={tmp_path}")
    assert code == 143 and "run 1: vanilla done" in out and "rotation" not in out
    assert json.loads((tmp_path / "1/run.json").read_text())["status"] == "COMPLETED"


def sequential_tasks_study():
    from forgetting.sequential import SequentialTasks

    return SequentialTasks


# ------------------------------------------------------------------ bad input

BAD = {
    "learning_rate=1": "learning_rate: no such setting",
    "batchsize=3": "did you mean batch_size?",
    "dataset.nme=digits": "did you mean dataset.name?",
    "dataset=digits": "dataset: is a group of settings",
    "nonsense": "nonsense: no such preset",
    "lr=fast": "lr: it must be a number above 0, not 'fast'",
    "lr=-1": "lr:",
    f"lr=1{'0' * 400}": "lr:",
    "batch_size=99999999999999999999": "batch_size:",
    "dataset.size=16.0": "dataset.size:",
    "probe_images=3": "probe_images: it must be more",
    "lr=nan": "lr:",
    "lr=1e999": "lr:",
    "batch_size=0": "batch_size: it must be a whole number from 4 to 65536, not 0",
    "width=2.5": "width:",
    "cycles=True": "cycles:",
    "iterations_per_task=-3": "iterations_per_task:",
    "eval_images=9": "eval_images: it must be at least one a class (10)",
    "rotated_images=65": "rotated_images: it must be at most batch_size (64)",
    "method=magic": "method: magic is no method; there are agem, ",
    "head=two": "head: it must be shared or per_task",
    "adam_betas=[0.9]": "adam_betas: it must be two numbers",
    "adam_betas=[0.9,1]": "adam_betas:",
    "device=tpu": "device: it must be auto, cpu or cuda",
    "precision=int8": "precision:",
    "precision=tf32 device=cpu": "precision: tf32 is of a GPU alone",
    "dataset.name=imagenet": "dataset.name: it must be auto, digits, cifar10 or image_folder",
    "dataset.size=31": "dataset.size: it must be one of 8, 16, 32",
    "stop_after=soon": "stop_after: it must be a length of time",
    "resume=no-such-run": "resume: there is no readable run",
    "results_dir=/dev/null/x": "results_dir: cannot write to /dev/null/x",
    "seed=-1": "seed:",
    "preset=cpu": "preset: choose one by its name alone",
    "dataset.root=2024_01": """as in "dataset.root='2024_01'\"\n""",
    "results_dir=1e3": """as in "results_dir='1e3'\"\n""",
}


def test_its_precision_is_settled_with_its_device(capsys, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(process, "prepare", lambda device, of: asked.append((device.type, of)))
    tiny = [*TINY, "method=vanilla", "precision=fp32", f"results_dir={tmp_path}"]
    assert in_process(capsys, "with", *tiny)[0] == 0
    assert asked == [("cpu", "fp32")]


@pytest.mark.parametrize("setting", BAD)
def test_a_bad_setting_is_one_line(setting, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = [] if "results_dir" in setting else ["results_dir=runs"]
    code, _, err = in_process(capsys, "with", "quick", *here, *setting.split())
    assert code in (1, 2)
    assert err.startswith("error: ") and err.count("\n") == 1
    assert BAD[setting] in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["with", "batch_sise=3"],
        ["with", "dataset.name=image_folder", "dataset.root=nowhere"],
        ["fly"],
        ["--no-such-option"],
        ["with", "quick", "seed=1", "seed.x=2"],
        ["with", "quick", "=5"],
    ],
)
def test_the_real_command_ends_in_one_line(arguments, tmp_path):
    done = command(SCRIPT, *arguments, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_no_bad_command_line_starts_a_run(capsys, tmp_path):
    experiments = {SCRIPT: sequential_tasks, "gan_probe.py": gan_probe}
    for script, line in every_line(500, seed=0):
        module = experiments[script]
        with pytest.raises(SystemExit) as end:
            arguments = ["with", "quick", f"results_dir={tmp_path}/runs", line]
            runner.main(module.STUDY, [script, *arguments])
        err = capsys.readouterr().err
        assert end.value.code in (1, 2), (script, line)
        assert err.startswith("error: ") and err.count("\n") == 1, (script, line, err)
        assert not list(tmp_path.iterdir()), (script, line)


def test_nor_does_one_as_a_process(tmp_path):
    refuse_all(every_line(20, seed=1), tmp_path)


@pytest.mark.parametrize("iterations", [3, 30])  # at 3, a probe is the first to see it
def test_a_diverging_run_stops_and_is_marked_failed(iterations, tmp_path, capsys):
    arguments = [*TINY, f"iterations_per_task={iterations}", "lr=1e30", "method=vanilla"]
    code, _, err = in_process(capsys, "with", *arguments, f"results_dir={tmp_path}")
    assert code == 1 and re.fullmatch(r"error: the run diverged: .* at step \d+; .*\n", err)
    assert json.loads((tmp_path / "1/run.json").read_text())["status"] == "FAILED"
    assert os.path.exists(tmp_path / "1/metrics.json")
