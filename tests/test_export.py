"""What is published of a run tells no path of the machine, and keeps every other text."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.results import _without_paths, export

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
    record = json.loads((run / "run.json").read_bytes())
    record["meta"]["options"]["UPDATE"] = [f"dataset.label={label!r}", "dataset.root='/home/me/x'"]
    record["experiment"]["base_dir"] = "/home/me/project/experiments"
    (run / "run.json").write_text(json.dumps(record))
    assert export([tmp_path / "runs"], tmp_path / "out") == 1
    (out,) = (tmp_path / "out").iterdir()
    published = json.loads((out / "config.json").read_bytes())["dataset"]
    assert (published["label"], published["root"]) == (label, "my images")
    words = json.loads((out / "run.json").read_bytes())["meta"]["options"]["UPDATE"]
    assert words == [f"dataset.label={label!r}", "dataset.root='x'"]
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
