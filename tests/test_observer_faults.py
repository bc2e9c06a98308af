"""Observers that are missing, out of reach or fail, and a program's own: no run ends of one."""

import json
import re
import sqlite3
import sys
import time

import pytest
from sacred.observers import FileStorageObserver, RunObserver
from test_observers import of, rows, sequential

from experiments import sequential_tasks
from experiments.run import other_observers
from experiments.run.entries import Entry
from forgetting.sequential import SequentialTasks


@pytest.fixture
def appended():
    """The observers that a program has appended to the experiment."""
    observers = sequential_tasks.STUDY.experiment.observers
    yield observers
    observers.clear()


# ------------------------------------------------------------------ before anything starts


@pytest.mark.parametrize(
    "words,modules,package",
    [
        (["-s", "sqlite:///x.db"], ["sqlalchemy"], "sqlalchemy"),
        (["-m", "mine"], ["pymongo", "gridfs", "bson"], "pymongo"),
        (["-t", "tiny"], ["hashfs"], "hashfs"),
        (["-t", "tiny"], ["tinydb_serialization"], "tinydb-serialization"),
        (["-S", "s3://bucket/runs"], ["boto3"], "boto3"),
        (["tensorboard=True"], ["tensorboard"], "tensorboard"),
    ],
)
def test_a_missing_package_is_one_line_before_anything_starts(
    words, modules, package, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in [*sys.modules]:
        if name.startswith(("sacred.observers.tinydb_hashfs.bases", "torch.utils.tensorboard")):
            monkeypatch.delitem(sys.modules, name)
    for name in modules:
        for module in [*sys.modules]:
            if module.startswith(f"{name}."):
                monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = sequential(capsys, "results_dir=runs", *words)
    assert code == 1 and out == "" and err.count("\n") == 1, err
    start = "error: tensorboard: " if "tensorboard" in modules else "error: --"
    assert err.startswith(start) and err.endswith(f" -m pip install {package}\n"), err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words,says",
    [
        (["-s", "sqlite:////nowhere/x.db"], "error: --sql: .*unable to open database file"),
        (["-s", "nonsense"], "error: --sql: Could not parse SQLAlchemy URL"),
        (["-m", "no/data/base"], "error: --mongo_db: it must be .HOST:PORT:.DATABASE"),
        (["-m", "127.0.0.1:1:mine"], "error: --mongo_db: 127.0.0.1:1: .*refused"),
        (["-S", "bucket/runs"], "error: --s3: Valid bucket specification not found"),
    ],
)
def test_one_that_cannot_be_reached_is_one_line_before_anything_starts(
    words, says, tmp_path, capsys
):
    pytest.importorskip({"-s": "sqlalchemy", "-m": "pymongo", "-S": "sacred"}[words[0]])
    code, out, err = sequential(capsys, f"results_dir={tmp_path / 'runs'}", *words)
    assert code == 1 and out == "" and err.count("\n") == 1
    assert re.match(says, err), err
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------ while a run goes on


def test_a_data_base_that_goes_in_the_middle_is_one_warning(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sqlalchemy")
    evaluate, evaluations = SequentialTasks.evaluate, []

    def and_remove(self):
        evaluations.append(self.position)
        if len(evaluations) == 3:
            deadline = time.monotonic() + 60
            while (beat := rows(tmp_path / "runs.db", "status, heartbeat > start_time")) == [
                ("RUNNING", None)
            ] and time.monotonic() < deadline:
                time.sleep(0.01)
            assert beat == [("RUNNING", 1)]  # by heartbeats, which have a thread of their own
            (tmp_path / "runs.db").unlink()
        return evaluate(self)

    monkeypatch.setattr(SequentialTasks, "evaluate", and_remove)
    words = [f"results_dir={tmp_path / 'runs'}", "-s", f"sqlite:///{tmp_path}/runs.db"]
    code, out, err = sequential(capsys, *words, "-b", "0.2")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "warning" in line]
    assert line.startswith("warning: SqlObserver: ")
    assert line.endswith(f"; the run goes on, and {tmp_path}/runs/1 has all of it")
    record = of(tmp_path / "runs/1/run.json")
    assert record["status"] == "COMPLETED" and record["result"]["first_cycle"]
    assert of(tmp_path / "runs/1/metrics.json")["accuracy/current"]["steps"] == evaluations


def test_a_run_too_large_for_its_table_is_one_warning_and_ends(tmp_path, capsys):
    """MySQL's limit of a text in tables that another program has made, here a trigger."""
    pytest.importorskip("sqlalchemy")
    words = [f"results_dir={tmp_path / 'runs'}", "-s", f"sqlite:///{tmp_path}/runs.db"]
    assert sequential(capsys, *words)[0] == 0
    with sqlite3.connect(tmp_path / "runs.db") as base:
        too_long = "SELECT RAISE(ABORT, 'Data too long') WHERE length(NEW.info) > 2000"
        base.execute(f"CREATE TRIGGER short BEFORE UPDATE ON run BEGIN {too_long}; END")
    code, out, err = sequential(capsys, *words)
    assert (code, err) == (0, "") and out.count("warning: ") == 1 and "Data too long" in out
    before, (run_id, status, info) = rows(tmp_path / "runs.db", "run_id, status, info")
    assert len(before[2]) > 2000 and before[1] == "COMPLETED"
    assert (run_id, status) == ("2", "COMPLETED") and "metrics" not in json.loads(info or "{}")


# ------------------------------------------------------------------ a program's own


class Grumbler(RunObserver):
    """A user's own. It fails at `failing`, and keeps what it was told."""

    def __init__(self, *failing):
        self.failing, self.told = failing, []

    def _tell(self, event, said):
        self.told.append((event, said))
        if event in self.failing:
            raise RuntimeError(f"no {event}\nand more of it")

    def started_event(self, **said):
        self._tell("started_event", said)

    def heartbeat_event(self, **said):
        self._tell("heartbeat_event", said)

    def completed_event(self, **said):
        self._tell("completed_event", said)


@pytest.mark.parametrize("failing", ["started_event", "heartbeat_event", "completed_event"])
def test_what_a_programs_own_observer_raises_ends_no_run(failing, tmp_path, capsys, appended):
    broken, sound = Grumbler(failing), Grumbler()
    broken.priority = 1000  # it would be asked before our own
    appended += [broken, sound]
    code, out, err = sequential(capsys, f"results_dir={tmp_path}", "-b", "0.05")
    assert (code, err) == (0, "")
    assert out.count("warning: ") == 1 and f"warning: Grumbler: no {failing}; the run goes" in out
    assert of(tmp_path / "1/run.json")["status"] == "COMPLETED"
    assert appended == [broken, sound]  # a program's own, as they were
    (started,) = [said for event, said in sound.told if event == "started_event"]
    assert started["_id"] == 1 and started["config"]["method"] == "vanilla"
    event, said = sound.told[-1]
    assert event == "completed_event" and said["result"] == of(tmp_path / "1/run.json")["result"]
    ends = [event for event, _ in broken.told if event == "completed_event"]
    # Its heartbeats failed, also the last one; that the run ended it is told all the same.
    assert len(ends) == {"started_event": 0, "heartbeat_event": 1, "completed_event": 1}[failing]


def test_one_that_is_gone_before_the_next_arm_keeps_it_from_nothing():
    class Gone(Entry):
        def ids(self):
            raise ConnectionError

        recover = ids

    class There(Entry):
        def ids(self):
            return [3, "12", "mine", "0"]

    assert other_observers.largest([Gone(RunObserver()), There(RunObserver())]) == 12
    assert other_observers.largest([Gone(RunObserver())]) == other_observers.largest([]) == 0


def test_without_observers_none_is_asked(tmp_path, capsys, appended):
    appended.append(Grumbler("started_event"))
    code, out, _ = sequential(capsys, f"results_dir={tmp_path}", "-u", "-s", "nonsense")
    assert code == 0 and "warning" not in out and not appended[0].told
    assert not list(tmp_path.iterdir())


def test_a_second_observer_of_the_runs_own_folder_is_left_out(tmp_path, capsys, appended):
    appended.append(FileStorageObserver(tmp_path / "runs"))
    code, out, _ = sequential(capsys, f"results_dir={tmp_path / 'runs'}")
    assert code == 0 and "warning" not in out
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["1"]
