"""What happens to a run when its surroundings fail, each by making them fail."""

import json
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT, PROJECT, TINY, command
from torture import STUDIES, kill_and_resume

from experiments.run import checkpoints
from experiments.run.stored import stored_runs
from forgetting.errors import UserError

SCRIPT = "sequential_tasks.py"
RUN = ["with", *TINY, "method=rotation", "results_dir=runs"]


def fails_in_one_line(done, says):
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


@pytest.mark.parametrize(
    "kilobytes,first_to_fail",
    [(15, "checkpoint"), (90, "metrics.json")],
    ids=["checkpoint", "metrics"],
)
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    kilobytes, first_to_fail, tmp_path
):
    """No file may grow beyond the limit: the first checkpoint is larger than 15 kB; with 90 kB it
    fits, and the metrics of five cycles outgrow it."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, kilobytes * 1000))

    arguments = [*RUN, "cycles=5", "iterations_per_task=12", "-b", "0.2"]
    done = command(SCRIPT, *arguments, cwd=tmp_path, preexec_fn=limit)
    fails_in_one_line(done, "results_dir: cannot write to runs/1: File too large; make room")
    for path in (tmp_path / "runs" / "1").glob("*.json"):
        json.loads(path.read_text())  # whole, or the one before
    assert not list((tmp_path / "runs" / "1").glob("**/*.tmp*"))
    kept = checkpoints.stored(tmp_path / "runs" / "1")
    assert bool(kept) == (first_to_fail == "metrics.json")
    if kept:
        assert json.loads((tmp_path / "runs/1/run.json").read_text())["status"] != "COMPLETED"
        done = command(SCRIPT, *arguments, "resume=auto", cwd=tmp_path)
        assert done.returncode == 0 and "resumed at step" in done.stdout, done.stderr
        (run,) = stored_runs(tmp_path / "runs")
        assert run.metrics["accuracy/current"][0][-1] == 600


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    for step in (3, 6, 9):
        state = {"step": step, "study": {"weights": torch.ones(3)}}
        checkpoints.save(tmp_path, step, state)
    newest, before = checkpoints.stored(tmp_path)  # two are kept
    newest.write_bytes(newest.read_bytes()[:-5])
    assert checkpoints.load(tmp_path)["step"] == 6
    assert f"{newest} is damaged" in capsys.readouterr().out
    before.write_bytes(b"")
    assert checkpoints.load(tmp_path) is None


def test_a_part_is_written_once_and_read_back_whole(tmp_path, capsys):
    parts = {}
    for step in (0, 3, 6):
        parts[f"fakes-{step}"] = torch.full((1000,), step)
        checkpoints.save(tmp_path, step, {"study": {"parts": parts}})
        if step == 0:
            (first,) = tmp_path.glob("fakes-0-*")
            written = first.stat().st_ino, first.stat().st_mtime_ns
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == written
    assert len(list(tmp_path.glob("fakes-*"))) == 3
    for path in checkpoints.stored(tmp_path):
        assert path.stat().st_size < 4000  # holds none of them
    read = checkpoints.load(tmp_path)["study"]["parts"]
    assert read.keys() == parts.keys()
    assert all(torch.equal(read[name], parts[name]) for name in parts)
    (last,) = tmp_path.glob("fakes-6-*")
    last.write_bytes(b"damaged")
    assert list(checkpoints.load(tmp_path)["study"]["parts"]) == ["fakes-0", "fakes-3"]
    assert "falling back" in capsys.readouterr().out
    checkpoints._known_whole.clear()  # as in the process that goes on
    checkpoints.save(tmp_path, 6, {"study": {"parts": parts}})
    assert torch.equal(checkpoints.load(tmp_path)["study"]["parts"]["fakes-6"], parts["fakes-6"])


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 99)
    checkpoints.save(tmp_path, 1, {"study": {}})
    monkeypatch.undo()
    with pytest.raises(UserError, match="another version of this program \\(99, not"):
        checkpoints.load(tmp_path)


def test_a_checkpoint_of_an_older_program_is_refused_in_one_line():
    """Of a GAN's run that commit 9afe66d began."""
    with pytest.raises(UserError) as refused:
        checkpoints.load(Path(__file__).parent / "version_3")
    assert "checkpoint-0-" in str(refused.value) and "\n" not in str(refused.value)
    assert f"(3, not {checkpoints.VERSION}); go on with that one" in str(refused.value)


def test_other_images_than_the_run_began_on_are_refused(tmp_path, digits):
    from PIL import Image

    for split, images, labels in (
        ("train", digits.train_images, digits.train_labels),
        ("test", digits.test_images, digits.test_labels),
    ):
        for c in (0, 1):
            (tmp_path / "images" / split / str(c)).mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:40]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture.save(tmp_path / "images" / split / str(c) / f"{i:02d}.png")
    arguments = [*RUN, "dataset.name=image_folder", "dataset.root=images", "dataset.size=8"]
    arguments += ["eval_images=40", "iterations_per_task=50"]
    done = command(SCRIPT, *arguments, "stop_after=0.01s", cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    whole = (tmp_path / "images/train/1/05.png").read_bytes()
    (tmp_path / "images/train/1/05.png").write_bytes(
        (tmp_path / "images/train/1/06.png").read_bytes()
    )
    done = command(SCRIPT, *arguments, "resume=1", cwd=tmp_path)
    fails_in_one_line(done, "resume: the images are not those that runs/1 began on")
    (tmp_path / "images/train/1/05.png").write_bytes(whole[: len(whole) // 2])
    fails_in_one_line(command(SCRIPT, *arguments, "resume=1", cwd=tmp_path), "not a whole image")
    (tmp_path / "images/train/1/05.png").write_bytes(whole)
    assert command(SCRIPT, *arguments, "resume=1", cwd=tmp_path).returncode == 0


def test_many_at_once_get_a_folder_each(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROJECT / "experiments" / SCRIPT), *RUN, f"seed={seed}"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(8)
    ]
    ends = [process.communicate(timeout=240) for process in processes]
    assert all(process.returncode == 0 for process in processes), ends
    runs = stored_runs(tmp_path / "runs")
    assert sorted(run.seed for run in runs) == list(range(8))
    assert {run.id for run in runs} == {str(i) for i in range(1, 9)}
    for run, (out, _) in zip(runs, sorted(ends), strict=False):
        assert re.search(r"stored in runs/\d", out)
        assert run.metrics["accuracy/current"][0][-1] == 30


@pytest.mark.parametrize("script", STUDIES)
def test_killed_at_random_moments_it_ends_the_same(script, tmp_path):
    kills = {"sequential_tasks.py": 2, "gan_probe.py": 2}[script]
    assert kill_and_resume(script, kills, random.Random(0), tmp_path) >= 1


def test_a_read_only_mount_is_said_before_anything_starts(tmp_path):
    # Root may write where permissions forbid it, but not where the file system does.
    mount = "mount -t tmpfs -o ro tmpfs runs"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount of one's own is allowed here")
    (tmp_path / "runs").mkdir()
    words = [sys.executable, str(PROJECT / "experiments" / SCRIPT), *RUN]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" "$@"', *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    fails_in_one_line(done, "results_dir: cannot write to runs; choose a folder that can be")


def test_garbage_in_the_results_folder_is_in_nobodys_way(tmp_path):
    (tmp_path / "runs" / "7").mkdir(parents=True)
    (tmp_path / "runs" / "7" / "run.json").write_text("{garbage")
    (tmp_path / "runs" / "note.txt").write_text("mine")
    done = command(SCRIPT, *RUN, "resume=auto", cwd=tmp_path)
    assert done.returncode == 0 and "stored in runs/8" in done.stdout
    fails_in_one_line(
        command(SCRIPT, "with", "resume=7", "results_dir=runs", cwd=tmp_path), "no readable run"
    )


@pytest.mark.parametrize("name", ["1.bak", "2", "0"])
def test_a_copy_of_a_run_is_kept_as_it_is(name, tmp_path):
    """Also before the first heartbeat, and however the copies sort."""
    runs = tmp_path / "runs"
    assert command(SCRIPT, *RUN, "stop_after=0.01s", cwd=tmp_path).returncode == 75
    shutil.copytree(runs / "1", runs / name)
    (runs / name / "info.json").unlink()
    before = {path.name: path.read_bytes() for path in (runs / name).iterdir()}
    done = command(SCRIPT, *RUN, "resume=auto", cwd=tmp_path)
    assert "resumed at step" in done.stdout and "stored in runs/1" in done.stdout, done.stderr
    assert f"warning: runs/{name} is a copy of run 1; passed over" in done.stdout
    shutil.rmtree(runs / "1")
    done = command(SCRIPT, *RUN, "resume=auto", "stop_after=0.01s", cwd=tmp_path)
    assert done.returncode == 75 and "resumed at step" not in done.stdout, done.stderr
    assert {path.name: path.read_bytes() for path in (runs / name).iterdir()} == before


def test_a_results_folder_that_was_moved_goes_on(tmp_path):
    assert command(SCRIPT, *RUN, "stop_after=0.01s", cwd=tmp_path).returncode == 75
    (tmp_path / "runs").rename(tmp_path / "moved")
    done = command(SCRIPT, *RUN, "results_dir=moved", "resume=auto", cwd=tmp_path)
    assert done.returncode == 0 and "resumed at step" in done.stdout, done.stderr
