"""Stored runs, read back: as a table, in groups, and each with the command that makes it again."""

import json
import shlex
import shutil
from dataclasses import replace

import pytest

from experiments.run.stored import load_runs, stored_runs
from experiments.show.groups import groups
from experiments.show.origin import command_of


@pytest.fixture
def found(sequential_runs):
    return groups(stored_runs(sequential_runs), "sequential_tasks")


def test_runs_become_one_tidy_table(sequential_runs):
    table = load_runs(sequential_runs)
    assert list(table) == [
        "run", "study", "data", "preset", "arm", "unit", "seed", "metric", "step", "value",
    ]  # fmt: skip
    stored = json.loads((sequential_runs / "3" / "metrics.json").read_text())["accuracy/task_2"]
    rows = table[(table.run == "3") & (table.metric == "accuracy/task_2")]
    assert rows.step.tolist() == stored["steps"] and rows.value.tolist() == stored["values"]
    assert (rows.arm.unique(), rows.seed.unique()) == (["rotation"], [0])
    assert (table.unit.astype(str) == table.seed.astype(str)).all()


def test_runs_of_other_settings_are_never_pooled(found):
    assert [len(group.runs) for group in found] == [6, 1]
    assert "width=4" in found[0].title and "width=5" in found[1].title


def test_a_command_makes_the_run_again(found):
    run = found[0].of_arm("rotation")[1]
    words = shlex.split(command_of(run))
    assert words[:4] == ["python", "experiments/sequential_tasks.py", "with", "quick"]
    assert words[-2:] == ["method=rotation", "seed=1"] and "width=4" in words
    assert words[-4:-2] == [f"{key}={run.config[key]}" for key in ("device", "precision")]
    assert not any(word.startswith("results_dir") for word in words)
    chosen = {word.partition("=")[0] for word in words[-4:]}
    asked = tuple(word for word in run.asked if word.partition("=")[0] not in chosen)
    assert "width=4" in asked and command_of(replace(run, asked=asked)) == command_of(run)


def test_a_command_says_what_its_preset_had_otherwise(found):
    run = found[0].of_arm("rotation")[1]
    other = replace(run, identity=run.identity | {"eval_every": 7, "lr": 0.5})
    assert " eval_every=7 " in command_of(other) and "eval_every" not in command_of(run)
    assert "lr" not in command_of(other)  # of which the preset says nothing


def test_a_users_run_replaces_an_equal_reference_run(sequential_runs, tmp_path):
    runs = stored_runs(sequential_runs, sequential_runs)
    assert len(runs) == 7 and {run.folder.parent for run in runs} == {sequential_runs}
    with pytest.raises(FileNotFoundError):
        load_runs(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(sequential_runs, copy)
    assert {run.folder.parent for run in stored_runs(copy, sequential_runs)} == {copy}
