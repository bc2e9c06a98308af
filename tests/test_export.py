"""What is published of a run: no path of the machine, every other text, and the last samples."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import PROJECT

from experiments.results import _without_paths, export
from experiments.run.stored import sample_grids, stored_runs
from forgetting.errors import UserError

OLD = Path(__file__).with_name("runs_9afe66d")


@pytest.mark.parametrize(
    "label",
    ["cats / dogs (90 % / 10 %)", "/r/cats", "~ half", "a: /b", "grey/../colour", "ü → 'ß'"],
)
def test_a_label_is_no_path(label, tmp_path):
    run = tmp_path / "runs/1"
    shutil.copytree(OLD / "sequential_tasks-quick-vanilla-0", run)
    config = json.loads((run / "config.json").read_bytes())
    config["dataset"] |= {"label": label, "root": "/home/me/my images"}
    (run / "config.json").write_text(json.dumps(config))
    info = json.loads((run / "info.json").read_bytes())
    info["data"]["classes"] = classes = [label.replace("/", "~"), *"123456789"]
    (run / "info.json").write_text(json.dumps(info))
    record = json.loads((run / "run.json").read_bytes())
    words = [f"dataset.label={label!r}", f"dataset.label = {label!r}"]
    record["meta"]["options"]["UPDATE"] = [*words, "dataset.root='/home/me/x'"]
    record["experiment"]["base_dir"] = "/home/me/project/experiments"
    (run / "run.json").write_text(json.dumps(record))
    assert export([tmp_path / "runs"], tmp_path / "out") == 1
    (out,) = (tmp_path / "out").iterdir()
    published = json.loads((out / "config.json").read_bytes())["dataset"]
    assert (published["label"], published["root"]) == (label, "my images")
    asked = json.loads((out / "run.json").read_bytes())["meta"]["options"]["UPDATE"]
    assert asked == [*words, "dataset.root='x'"]
    assert json.loads((out / "info.json").read_bytes())["data"]["classes"] == classes
    assert "/home/me" not in "".join(path.read_text() for path in out.glob("*.json"))


@pytest.mark.parametrize(
    "text,published",
    [
        ("results/runs", "results/runs"),
        ("/home/me/runs", "runs"),
        ("../../elsewhere/runs", "runs"),
        ("~/runs", "runs"),
        ("method=rotation+/home/me/mine.py", "method=rotation+mine.py"),
        ('dataset.root="/home/me/a b"', 'dataset.root="a b"'),
        ("git://home/me/project", "git:project"),
        ("50 % / 50 %", "50 % / 50 %"),
    ],
)
def test_a_path_is_cut_to_its_last_part(text, published):
    assert _without_paths({"key": [text]}) == {"key": [published]}


def test_published_runs_keep_the_last_grid_alone(gan_runs, tmp_path):
    shutil.copytree(gan_runs / "1", tmp_path / "runs/1")
    names = [f"samples-{step:06d}.png" for step in range(0, 11000, 1000)]
    for old in (tmp_path / "runs/1").glob("samples-*.png"):
        old.unlink()
    for name in names:
        (tmp_path / "runs/1" / name).write_bytes(b"")
    file = tmp_path / "runs/1/run.json"
    record = json.loads(file.read_text())
    rest = [name for name in record["artifacts"] if not name.startswith("samples-")]
    file.write_text(json.dumps(record | {"artifacts": rest + names}))
    assert export([tmp_path / "runs"], tmp_path / "out") == 1
    (run,) = (tmp_path / "out").iterdir()
    assert sorted(path.name for path in run.glob("samples-*.png")) == names[-1:]
    published = json.loads((run / "run.json").read_text())["artifacts"]
    assert published == rest + names[-1:] and all((run / name).exists() for name in published)
    # The figure shows some of those along the way, where they are.
    shown = [path.name for path in sample_grids(tmp_path / "runs/1")]
    assert shown == [names[0], names[3], names[6], names[10]]


def test_published_runs_hold_no_paths_host_or_weights(sequential_runs, tmp_path):
    assert export([sequential_runs], tmp_path / "a") == 7
    copies = [run.identity for run in stored_runs(tmp_path / "a")]
    assert all(run.identity in copies for run in stored_runs(sequential_runs)) and len(copies) == 7
    for run in stored_runs(tmp_path / "a"):  # their command lines are still such
        assert all("=" in word or word == "quick" for word in run.asked), run.asked
    for wrong in (sequential_runs, tmp_path / "missing"):
        with pytest.raises(UserError):
            export([wrong], sequential_runs)
    text = ""
    for path in (tmp_path / "a").rglob("*"):
        assert path.suffix in ("", ".json", ".txt", ".csv"), path
        text += path.read_text() if path.is_file() else ""
    assert str(sequential_runs) not in text and str(PROJECT) not in text and "hostname" not in text
    assert "stored in" not in text  # as cout.txt says, by a path that may be relative
