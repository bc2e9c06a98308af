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
from datetime import datetime
from types import SimpleNamespace

import pytest
from conftest import TINY, TINY_GAN, command
from sacred.observers import FileStorageObserver

from experiments import gan_probe, sequential_tasks
from experiments.run import exit_codes, runner
from experiments.run.entries import SqlEntry

WORDS = ["with", *TINY, "method=vanilla"]
SERVER = os.environ.get("FORGETTING_MONGODB")


def run(study, *words) -> int:
    with pytest.raises(SystemExit) as end:
        runner.main(study, [f"{study.name}.py", *map(str, words)])
    return end.value.code


def sequential(capsys, *words):
    code = run(sequential_tasks.STUDY, *WORDS, *words)
    return code, *capsys.readouterr()


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


# ------------------------------------------------------------------ what a data base has


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


def test_a_password_is_not_stored(tmp_path, capsys):
    pytest.importorskip("sqlalchemy")
    secret = f"sqlite:///{tmp_path}/runs.db?timeout=7.25"
    words = [f"results_dir={tmp_path / 'runs'}", "stop_after=0.01s", "-s", secret]
    assert sequential(capsys, *words)[0] == exit_codes.TRY_LATER
    assert "7.25" not in (tmp_path / "runs/1/run.json").read_text()


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


def test_the_hint_asks_for_the_other_observers_and_repeats_no_address(tmp_path, capsys):
    words = [f"results_dir={tmp_path}", "-s", f"sqlite:///{tmp_path}/runs.db"]
    code, out, _ = sequential(capsys, *words, "stop_after=0.01s")
    assert code == exit_codes.TRY_LATER and "sqlite" not in out
    assert re.search("; name its other observers again; go on with: .* with resume=1 res", out)
