"""Other observers beside the run's folder, each read back by other means than its own.

MongoDB is mongomock here, and a server where FORGETTING_MONGODB has the address (HOST:PORT) of one;
S3 is a dictionary in boto3's place.
"""

import importlib
import io
import json
import os
import re
import sqlite3
import sys
import time
from datetime import datetime
from types import SimpleNamespace

import pytest
from conftest import TINY, TINY_GAN, command
from sacred.observers import FileStorageObserver, RunObserver

from experiments import gan_probe, sequential_tasks
from experiments.run import exit_codes, other_observers, runner
from experiments.run.entries import Entry, SqlEntry
from forgetting.sequential import SequentialTasks

WORDS = ["with", *TINY, "method=vanilla"]
SERVER = os.environ.get("FORGETTING_MONGODB")


def run(study, *words) -> int:
    with pytest.raises(SystemExit) as end:
        runner.main(study, [f"{study.name}.py", *map(str, words)])
    return end.value.code


def sequential(capsys, *words):
    code = run(sequential_tasks.STUDY, *WORDS, *words)
    return code, *capsys.readouterr()


@pytest.fixture
def appended():
    """The observers that a program has appended to the experiment."""
    observers = sequential_tasks.STUDY.experiment.observers
    yield observers
    observers.clear()


def rows(path, columns):
    with sqlite3.connect(path, timeout=60) as base:
        return base.execute(f"SELECT {columns} FROM run ORDER BY id").fetchall()


def of(path):
    return json.loads(path.read_bytes())


class Buckets:
    """As much of boto3's S3 as Sacred asks for."""

    meta = SimpleNamespace(client=SimpleNamespace(head_bucket=lambda Bucket: None))

    def __init__(self):
        self.objects = {}

    def Bucket(self, name):
        def starting(Prefix):
            return [SimpleNamespace(key=key) for key in self.objects if key.startswith(Prefix)]

        return SimpleNamespace(objects=SimpleNamespace(filter=starting))

    def Object(self, bucket, key):
        def put(Body):
            whole = Body.read() if hasattr(Body, "read") else Body
            self.objects[key] = whole.encode() if isinstance(whole, str) else whole

        return SimpleNamespace(put=put, get=lambda: {"Body": io.BytesIO(self.objects[key])})


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """A GAN's run that was interrupted after one step and then went on to its end, kept by all
    observers at once; what each had of it when it was interrupted."""
    for package in ("sqlalchemy", "pymongo", "mongomock", "tinydb", "hashfs", "tensorboard"):
        pytest.importorskip(package)
    import mongomock
    import mongomock.gridfs
    import pymongo

    mongomock.gridfs.enable_gridfs_integration()
    here, store, buckets = tmp_path_factory.mktemp("everywhere"), mongomock.MongoClient(), Buckets()
    words = ["with", *TINY_GAN, "model=ssgan", "checkpoint_every=1", f"results_dir={here / 'runs'}"]
    words += ["tensorboard=True", "-s", f"sqlite:///{here}/runs.db", "-m", "mine", "-b", "0.2"]
    words += ["-t", here / "tiny", "-S", "s3://bucket/all/runs"]
    session = SimpleNamespace(Session=lambda: SimpleNamespace(region_name="x"))
    boto3 = SimpleNamespace(resource=lambda _, **__: buckets, session=session)
    botocore = SimpleNamespace(ClientError=OSError)
    observers = gan_probe.STUDY.experiment.observers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pymongo, "MongoClient", lambda *_, **__: store)
        patch.setitem(sys.modules, "boto3", boto3)
        patch.setitem(sys.modules, "botocore", SimpleNamespace(errorfactory=botocore))
        patch.setitem(sys.modules, "botocore.errorfactory", botocore)
        observers.append(FileStorageObserver(here / "second"))
        try:
            assert run(gan_probe.STUDY, *words, "stop_after=0.01s") == exit_codes.TRY_LATER
            before = {
                "sql": rows(here / "runs.db", "run_id, status, start_time, info"),
                "mongo": [*store.mine.runs.find()],
                "tiny": [*of(here / "tiny/metadata.json")["runs"].values()],
                "second": of(here / "second/1/run.json"),
                "s3": json.loads(buckets.objects["all/runs/1/run.json"]),
                "metrics": of(here / "runs/1/metrics.json"),
            }
            # As if it had been killed, and had logged more than its checkpoint has.
            late = {"steps": 2, "values": 0.5, "timestamps": datetime(2026, 1, 1)}
            store.mine.metrics.update_many({}, {"$push": late})
            store.mine.metrics.insert_one({"run_id": 1, "name": "late", **late})
            assert run(gan_probe.STUDY, *words, "resume=auto") == 0
        finally:
            observers.clear()
    folder = here / "runs/1"
    whole = of(folder / "run.json"), of(folder / "metrics.json")
    assert whole[0]["status"] == "COMPLETED" and len(whole[0]["artifacts"]) == 7
    return SimpleNamespace(
        here=here, folder=folder, store=store, buckets=buckets, before=before,
        record=whole[0], metrics=whole[1], said=(folder / "cout.txt").read_text(),
    )  # fmt: skip


def test_sql_has_all_of_a_run_that_went_on(everywhere):
    ((run_id, status, began, info),) = everywhere.before["sql"]
    assert (run_id, status) == ("1", "INTERRUPTED")
    assert json.loads(info)["metrics"] == everywhere.before["metrics"]
    columns = "run_id, status, start_time, info, captured_out, config, stop_time > start_time"
    ((*same, info, said, config, later),) = rows(everywhere.here / "runs.db", columns)
    assert same == ["1", "COMPLETED", began] and later
    assert began.replace(" ", "T") == everywhere.record["start_time"]
    info = json.loads(info)
    assert info["metrics"] == everywhere.metrics and info["result"] == everywhere.record["result"]
    assert info["data"] == of(everywhere.folder / "info.json")["data"]
    assert said == everywhere.said and "resumed at step 1" in said
    assert json.loads(config)["model"] == "ssgan"
    with sqlite3.connect(everywhere.here / "runs.db") as base:
        stored = base.execute("SELECT filename, content FROM artifact").fetchall()
    assert sorted(name for name, _ in stored) == sorted(everywhere.record["artifacts"])
    for name, content in stored:
        assert content == (everywhere.folder / name).read_bytes(), name


def test_mongodb_has_all_of_a_run_that_went_on(everywhere):
    from gridfs import GridFS

    (before,) = everywhere.before["mongo"]
    assert (before["_id"], before["status"]) == (1, "INTERRUPTED")
    (found,) = everywhere.store.mine.runs.find()
    assert (found["_id"], found["status"]) == (1, "COMPLETED")
    assert found["start_time"] == before["start_time"] < before["stop_time"] < found["stop_time"]
    assert found["result"] == everywhere.record["result"]
    assert found["captured_out"] == everywhere.said
    stored = {metric["name"]: metric for metric in everywhere.store.mine.metrics.find()}
    assert stored.keys() == everywhere.metrics.keys()
    for name, columns in everywhere.metrics.items():
        assert stored[name]["run_id"] == 1
        assert stored[name]["steps"] == columns["steps"], name
        assert stored[name]["values"] == columns["values"], name
        times = [datetime.fromisoformat(time) for time in columns["timestamps"]]
        assert [abs(a - b).total_seconds() < 1 for a, b in
                zip(stored[name]["timestamps"], times, strict=True)]  # fmt: skip
    assert {(m["name"], m["id"]) for m in found["info"]["metrics"]} == {
        (name, str(metric["_id"])) for name, metric in stored.items()
    }
    files = GridFS(everywhere.store.mine)
    assert sorted(a["name"] for a in found["artifacts"]) == sorted(everywhere.record["artifacts"])
    for artifact in found["artifacts"]:
        content = files.get(artifact["file_id"]).read()
        assert content == (everywhere.folder / artifact["name"]).read_bytes()


def test_tinydb_has_all_of_a_run_that_went_on(everywhere):
    (before,) = everywhere.before["tiny"]
    assert (before["_id"], before["status"]) == (1, "INTERRUPTED")
    (found,) = of(everywhere.here / "tiny/metadata.json")["runs"].values()
    assert (found["_id"], found["status"]) == (1, "COMPLETED")
    assert found["start_time"] == before["start_time"]
    assert found["result"] == everywhere.record["result"]
    assert found["info"]["metrics"] == everywhere.metrics
    names = [artifact[0] for artifact in found["artifacts"]]
    assert sorted(names) == sorted(everywhere.record["artifacts"])


@pytest.mark.parametrize("kind", ["second", "s3"])
def test_files_elsewhere_have_all_of_a_run_that_went_on(kind, everywhere):
    assert everywhere.before[kind]["status"] == "INTERRUPTED"

    def content(name):
        if kind == "s3":
            return everywhere.buckets.objects[f"all/runs/1/{name}"]
        return (everywhere.here / "second/1" / name).read_bytes()

    found = json.loads(content("run.json"))
    assert found["status"] == "COMPLETED" and found["result"] == everywhere.record["result"]
    assert found["start_time"] == everywhere.record["start_time"]
    assert json.loads(content("metrics.json")) == everywhere.metrics
    assert content("cout.txt").decode() == everywhere.said
    assert sorted(found["artifacts"]) == sorted(everywhere.record["artifacts"])
    for name in found["artifacts"]:
        assert content(name) == (everywhere.folder / name).read_bytes()


def test_tensorboard_shows_every_value_once(everywhere):
    """Of the files themselves; what TensorBoard drops of them would hide a second one."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = (everywhere.folder / "tensorboard").iterdir()
    scalars, pictures = {}, {}
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "images":
                pictures[event.step] = value.tensor.string_val[2]
            else:
                (number,) = value.tensor.float_val
                scalars.setdefault(value.tag, []).append((event.step, number, event.wall_time))
    assert scalars.keys() == everywhere.metrics.keys()
    for name, columns in everywhere.metrics.items():
        steps, values, _ = map(list, zip(*scalars[name], strict=True))
        assert steps == columns["steps"] and values == pytest.approx(columns["values"]), name
        first = datetime.fromisoformat(f"{columns['timestamps'][0]}+00:00").timestamp()
        assert scalars[name][0][2] == pytest.approx(first, abs=1)
    assert sorted(pictures) == [0, 2, 4]
    from PIL import Image

    for step, picture in pictures.items():
        shown, stored = (
            Image.open(file).convert("RGB").tobytes()
            for file in (io.BytesIO(picture), everywhere.folder / f"samples-{step:06d}.png")
        )
        assert shown == stored


# ------------------------------------------------------------------ ids


def test_a_data_base_that_several_folders_share_keeps_their_runs_apart(tmp_path, capsys):
    pytest.importorskip("sqlalchemy")
    base = ["-s", f"sqlite:///{tmp_path}/runs.db"]
    one, other = (f"results_dir={tmp_path / name}" for name in ("one", "other"))
    assert sequential(capsys, one, *base)[0] == 0
    # The first run of a second folder; without the data base it would be its run 1.
    assert sequential(capsys, other, *base)[0] == 0
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["2"]
    assert rows(tmp_path / "runs.db", "run_id, status") == [("1", "COMPLETED"), ("2", "COMPLETED")]
    # A run 1 that the data base was not told of, and that is told to it when it goes on.
    third = f"results_dir={tmp_path / 'third'}"
    assert sequential(capsys, third, "stop_after=0.01s")[0] == exit_codes.TRY_LATER
    code, out, _ = sequential(capsys, third, *base, "resume=1")
    assert code == 0 and out.count("warning: ") == 1
    assert "warning: SqlObserver: it knows another run 1; the run goes on, and " in out
    assert of(tmp_path / "third/1/run.json")["status"] == "COMPLETED"
    assert rows(tmp_path / "runs.db", "run_id, status") == [("1", "COMPLETED"), ("2", "COMPLETED")]
    code, _, err = sequential(capsys, third, *base, "--id", "2")
    assert code == 1 and err == "error: --id: SqlObserver knows a run 2 already\n"


# ------------------------------------------------------------------ what fails


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


def test_a_password_is_not_stored(tmp_path, capsys):
    pytest.importorskip("sqlalchemy")
    secret = f"sqlite:///{tmp_path}/runs.db?timeout=7.25"
    words = [f"results_dir={tmp_path / 'runs'}", "stop_after=0.01s", "-s", secret]
    assert sequential(capsys, *words)[0] == exit_codes.TRY_LATER
    assert "7.25" not in (tmp_path / "runs/1/run.json").read_text()


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


def test_tables_of_mysql_have_room_for_metrics():
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sacred.observers import SqlObserver
    from sacred.observers.sql_bases import Run
    from sqlalchemy.dialects import mysql, sqlite
    from sqlalchemy.schema import CreateTable

    SqlEntry(SqlObserver("sqlite://")).reach()
    made = {
        dialect: str(CreateTable(Run.__table__).compile(dialect=dialect.dialect()))
        for dialect in (mysql, sqlite)
    }
    assert "info LONGTEXT" in made[mysql] and "info TEXT" in made[sqlite], sqlalchemy.__version__


def test_two_arms_beside_each_other_are_in_one_data_base(tmp_path):
    pytest.importorskip("sqlalchemy")
    base = ["-s", f"sqlite:///{tmp_path}/runs.db", "-b", "0.05"]
    done = command("sequential_tasks.py", "with", *TINY, "results_dir=runs", *base, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    assert "warning" not in done.stdout + done.stderr
    found = rows(tmp_path / "runs.db", "run_id, status, info")
    assert [found[i][:2] for i in (0, 1)] == [("1", "COMPLETED"), ("2", "COMPLETED")]
    for run_id, _, info in found:
        assert json.loads(info)["metrics"] == of(tmp_path / f"runs/{run_id}/metrics.json")


@pytest.mark.skipif(not SERVER, reason="no FORGETTING_MONGODB=HOST:PORT in the environment")
def test_a_real_mongodb_has_all_of_a_run_that_went_on(tmp_path, capsys):
    pymongo = importlib.import_module("pymongo")
    name = f"forgetting_test_{os.getpid()}"
    client = pymongo.MongoClient(SERVER, serverSelectionTimeoutMS=5000)
    words = [f"results_dir={tmp_path}", "-m", f"{SERVER}:{name}"]
    try:
        assert sequential(capsys, *words, "stop_after=0.01s")[0] == exit_codes.TRY_LATER
        (before,) = client[name].runs.find()
        assert before["status"] == "INTERRUPTED"
        assert sequential(capsys, *words, "resume=auto")[0] == 0
        (found,) = client[name].runs.find()
        assert (found["_id"], found["status"]) == (1, "COMPLETED")
        assert found["result"] == of(tmp_path / "1/run.json")["result"]
        stored = {m["name"]: (m["steps"], m["values"]) for m in client[name].metrics.find()}
        metrics = of(tmp_path / "1/metrics.json")
        assert stored == {key: (m["steps"], m["values"]) for key, m in metrics.items()}
    finally:
        client.drop_database(name)
