"""How other observers keep a run: the entry to find, to go on with, to complete.

Sacred's own begin another entry, or fail, where a run is taken up again; each kind has its way
round that here.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sacred.observers import (
    FileStorageObserver,
    MongoObserver,
    RunObserver,
    S3Observer,
    SqlObserver,
    TinyDbObserver,
)
from sacred.serializer import flatten

# What an entry says again of a run that goes on.
AGAIN = {"status": "RUNNING", "stop_time": None, "result": None, "fail_trace": None}


class Entry:
    """Of an observer of any kind; it is told of a run, and there is nothing to go on with.

    What its methods raise is the observer's own. Ids are numbers, or else texts.
    """

    def __init__(self, observer: RunObserver):
        self.observer = observer
        self.own: dict[str, Any] = {}  # what is in its info beside the run's

    def reach(self) -> None:
        """Make sure that it can be asked; raises where it cannot."""

    def recover(self) -> None:
        """After a failure, that what comes next does not fail by it."""

    def ids(self) -> Iterable:
        """Of all runs that it knows."""
        return ()

    def began(self, run_id: int | str) -> datetime | None:
        """When the run began, in UTC; None where it knows none of that id."""
        return None

    def start(self, **said) -> None:
        """Told as `started_event` is."""
        self.observer.started_event(**said)

    def go_on(self, **said) -> None:
        """Likewise, of a run that it knows."""
        self.observer.started_event(**said)

    def log_metrics(self, metrics_by_name: Mapping, info: Mapping) -> None:
        self.observer.log_metrics(metrics_by_name=metrics_by_name, info=dict(info))

    def put_metrics(self, metrics: Mapping[str, Mapping[str, list]]) -> None:
        """All of them, as metrics.json holds them, in place of those that are there."""

    def heartbeat(self, info: Mapping, **said) -> None:
        self.observer.heartbeat_event(info={**info, **self.own}, **said)

    def drop_artifact(self, name: str) -> None:
        """Which is about to be stored anew."""

    def end(self, event: str, **said) -> None:
        getattr(self.observer, event)(**said)


class SqlEntry(Entry):
    """Its table has no place for metrics, and of a result for one number alone: both are put into
    `info`."""

    def __init__(self, observer: SqlObserver):
        from sqlalchemy.orm import Session

        super().__init__(observer)
        # Sacred's has a session a thread, and what heartbeats store would stay in theirs.
        observer.session = Session(observer.engine)

    def reach(self) -> None:
        from sacred.observers.sql_bases import Base, Run
        from sqlalchemy import Text
        from sqlalchemy.dialects.mysql import LONGTEXT
        from sqlalchemy.exc import DatabaseError

        # A text in MySQL has 64 KB, too few for metrics; in tables that we make it has enough.
        Run.__table__.c.info.type = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
        try:
            Base.metadata.create_all(self.observer.engine)
        except DatabaseError:  # another process may be just making the tables
            Base.metadata.create_all(self.observer.engine)

    def recover(self) -> None:
        self.observer.session.rollback()

    def ids(self) -> Iterable[str]:
        from sacred.observers.sql_bases import Run

        return [run_id for (run_id,) in self.observer.session.query(Run.run_id)]

    def _find(self, run_id):
        from sacred.observers.sql_bases import Run

        return self.observer.session.query(Run).filter_by(run_id=str(run_id)).first()

    def began(self, run_id) -> datetime | None:
        run = self._find(run_id)
        return run and run.start_time

    def start(self, **said) -> None:
        with self.observer.session.no_autoflush:  # of which SQLAlchemy would warn
            super().start(**said)

    def go_on(self, _id, config, **said) -> None:
        run = self.observer.run = self._find(_id)
        for column, value in {**AGAIN, "config": json.dumps(flatten(config))}.items():
            setattr(run, column, value)
        self.observer.save()

    def put_metrics(self, metrics) -> None:
        self.own["metrics"] = metrics

    def heartbeat(self, info, result, **said) -> None:
        if result is not None:
            self.own["result"] = result
        super().heartbeat(info, result=None, **said)

    def drop_artifact(self, name: str) -> None:
        from sacred.observers.sql_bases import Artifact

        of_run = {"run_id": self.observer.run.run_id, "filename": name}
        self.observer.session.query(Artifact).filter_by(**of_run).delete()

    def end(self, event: str, **said) -> None:
        super().end(event, **said | ({"result": None} if "result" in said else {}))


class MongoEntry(Entry):
    def reach(self) -> None:
        if self.observer.overwrite is not None:
            raise ValueError("the results folder gives a run its id; leave it out here")
        self.observer.runs.database.client.admin.command("ping")

    def ids(self) -> Iterable:
        return [run["_id"] for run in self.observer.runs.find({}, {"_id": 1})]

    def began(self, run_id) -> datetime | None:
        run = self.observer.runs.find_one({"_id": run_id})
        return run and run["start_time"]

    def go_on(self, _id, config, **said) -> None:
        before = self.observer.runs.find_one({"_id": _id})
        self.observer.run_entry = {**before, **AGAIN, "config": flatten(config)}
        self.observer.save()

    def log_metrics(self, metrics_by_name, info) -> None:
        # It adds to what it is given where they are to be found.
        self.observer.log_metrics(metrics_by_name=metrics_by_name, info=self.own)

    def put_metrics(self, metrics) -> None:
        stored, run_id = self.observer.metrics, self.observer.run_entry["_id"]
        if stored is None:
            return
        stored.delete_many({"run_id": run_id, "name": {"$nin": list(metrics)}})
        for name, columns in metrics.items():
            times = [datetime.fromisoformat(time) for time in columns["timestamps"]]
            whole = {"$set": {**columns, "timestamps": times}}
            stored.update_one({"run_id": run_id, "name": name}, whole, upsert=True)
        self.own["metrics"] = [
            {"name": metric["name"], "id": str(metric["_id"])}
            for metric in stored.find({"run_id": run_id}, {"name": 1})
        ]

    def drop_artifact(self, name: str) -> None:
        artifacts = self.observer.run_entry["artifacts"]
        for artifact in [one for one in artifacts if one["name"] == name]:
            self.observer.fs.delete(artifact["file_id"])
            artifacts.remove(artifact)


class TinyDbEntry(Entry):
    """Nor has it a place for metrics but `info`."""

    def ids(self) -> Iterable:
        return [run["_id"] for run in self.observer.runs.all()]

    def _find(self, run_id):
        return next((run for run in self.observer.runs.all() if run["_id"] == run_id), None)

    def began(self, run_id) -> datetime | None:
        run = self._find(run_id)
        return run and run["start_time"]

    def go_on(self, _id, config, **said) -> None:
        before = self._find(_id)
        self.observer.db_run_id = before.doc_id
        self.observer.run_entry = {**before, **AGAIN, "config": flatten(config)}
        self.observer.save()

    def put_metrics(self, metrics) -> None:
        self.own["metrics"] = metrics

    def drop_artifact(self, name: str) -> None:
        artifacts = self.observer.run_entry["artifacts"]
        artifacts[:] = [artifact for artifact in artifacts if artifact[0] != name]


class FolderEntry(Entry):
    """Of a second FileStorageObserver, in another folder."""

    def ids(self) -> Iterable[str]:
        folder = Path(self.observer.basedir)
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []

    def _record(self, run_id) -> dict | None:
        path = Path(self.observer.basedir, str(run_id), "run.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def began(self, run_id) -> datetime | None:
        record = self._record(run_id)
        return record and datetime.fromisoformat(record["start_time"])

    def go_on(self, _id, **said) -> None:
        self.observer.dir = str(Path(self.observer.basedir, str(_id)))
        Path(self.observer.dir, "cout.txt").unlink(missing_ok=True)  # it is told all of it again
        artifacts = self._record(_id)["artifacts"]
        with _instead(self.observer, "_make_run_dir", lambda _id: None):
            self.observer.started_event(_id=_id, **said)
        self.observer.run_entry["artifacts"] = artifacts

    def put_metrics(self, metrics) -> None:
        self.observer.save_json(metrics, "metrics.json")

    def drop_artifact(self, name: str) -> None:
        artifacts = self.observer.run_entry["artifacts"]
        artifacts[:] = [artifact for artifact in artifacts if artifact != name]


class S3Entry(FolderEntry):
    def reach(self) -> None:
        if not self.observer._bucket_exists():
            self.observer._create_bucket()

    def ids(self) -> Iterable[str]:
        return self.observer._list_s3_subdirs()

    def _record(self, run_id) -> dict | None:
        key = f"{self.observer.basedir}/{run_id}/run.json"
        if not self.observer._objects_exist_in_dir(key):
            return None
        return json.loads(self.observer.s3.Object(self.observer.bucket, key).get()["Body"].read())

    def start(self, **said) -> None:
        self.observer.saved_metrics = {}  # Sacred's has those of the run before
        super().start(**said)

    def go_on(self, _id, **said) -> None:
        artifacts = self._record(_id)["artifacts"]
        with _instead(self.observer, "_objects_exist_in_dir", lambda prefix: False):
            self.observer.started_event(_id=_id, **said)
        self.observer.run_entry["artifacts"] = artifacts

    def put_metrics(self, metrics) -> None:
        self.observer.saved_metrics = copy.deepcopy(dict(metrics))
        super().put_metrics(metrics)

    def heartbeat(self, info, **said) -> None:
        self.observer.cout_write_cursor = 0  # Sacred's replaces what was said by what is new
        super().heartbeat(info, **said)


@contextmanager
def _instead(observer: RunObserver, name: str, function) -> Iterator[None]:
    """Another function in place of one of the observer's."""
    setattr(observer, name, function)
    try:
        yield
    finally:
        delattr(observer, name)


KINDS = {
    SqlObserver: SqlEntry,
    MongoObserver: MongoEntry,
    TinyDbObserver: TinyDbEntry,
    S3Observer: S3Entry,
    FileStorageObserver: FolderEntry,
}


def entry_of(observer: RunObserver) -> Entry:
    """How this observer keeps a run."""
    return next((of for kind, of in KINDS.items() if isinstance(observer, kind)), Entry)(observer)
