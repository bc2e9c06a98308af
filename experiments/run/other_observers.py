"""Other observers of Sacred's, beside the run's folder: those that its options ask for (-s, -m, -t,
-S) and those that a program appends to the experiment.

The folder comes first: it gives the run its id, and it has all of the run whatever becomes of the
others. At a run's end, and where it is taken up again, they are made to hold what it holds.
"""

import json
import mimetypes
import re
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from sacred import Experiment
from sacred.observers import FileStorageObserver, MongoObserver, RunObserver
from sacred.observers.mongo import get_pattern, parse_mongo_db_arg
from sacred.observers.s3_observer import s3_option
from sacred.observers.sql import sql_option
from sacred.observers.tinydb_hashfs import tiny_db_option
from tqdm import tqdm

from experiments.run import metrics_file
from experiments.run.entries import Entry, entry_of
from experiments.run.observer import RunFolder
from forgetting.errors import UserError

# Packages that are imported by another name than they are installed by.
INSTALLED_BY = {
    **{name: "pymongo" for name in ("bson", "gridfs")},
    **{"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"},
    "tinydb_serialization": "tinydb-serialization",
}


def _mongo_db_option(asked: str, run) -> None:
    """Sacred's -m, for which a server that is not there is not waited for half a minute."""
    if not re.match(get_pattern(), asked):
        raise ValueError("it must be [HOST:PORT:]DATABASE[.COLLECTION][!PRIORITY]")
    settings = parse_mongo_db_arg(asked)
    run.observers.append(MongoObserver(**settings, serverSelectionTimeoutMS=5000))


OPTIONS = {
    "--sql": sql_option,
    "--mongo_db": _mongo_db_option,
    "--tiny_db": tiny_db_option,
    "--s3": s3_option,
}


def others(experiment: Experiment, options: dict, folder: Path) -> list[Entry]:
    """All but our own, each reached once. What asks for them is taken out of `options`, which a run
    stores: it may hold a password.

    Raises UserError where a package is missing, or one cannot be reached.
    """
    found, none = [], options["--unobserved"]
    for observer in experiment.observers:
        if not none and not _is_at(observer, folder):
            with _in_one_line(type(observer).__name__):
                found.append(_reached(observer))
    for flag, add in OPTIONS.items():
        asked, options[flag] = options[flag], None
        if asked and not none:
            run = SimpleNamespace(observers=[])
            with _in_one_line(flag):
                add(asked, run)
                found += map(_reached, run.observers)
    return found


def _reached(observer: RunObserver) -> Entry:
    entry = entry_of(observer)
    entry.reach()
    return entry


def _is_at(observer: RunObserver, folder: Path) -> bool:
    """Whether it would write the very files that our own does."""
    of_files = isinstance(observer, FileStorageObserver)
    return of_files and Path(observer.basedir).resolve() == folder.resolve()


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(f"{what}: {missing(error)}") from None
    except Exception as error:
        raise UserError(f"{what}: {_line(error)}") from None


def missing(error: ImportError) -> str:
    """Which package is missing, and the command that installs it."""
    module = (error.name or str(error)).split(".")[0]
    package = INSTALLED_BY.get(module, module)
    command = shlex.join([sys.executable, "-m", "pip", "install", package])
    return f"it needs a package that is not installed; {command}"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def name_of(entry: Entry) -> str:
    return type(entry.observer).__name__


def largest(entries: Sequence[Entry]) -> int:
    """The largest number of a run that some of them know, or 0. Of one that fails nothing is known:
    it is said when the run begins."""
    numbers = [0]
    for entry in entries:
        try:
            numbers += [int(run_id) for run_id in map(str, entry.ids()) if run_id.isdecimal()]
        except Exception:
            with suppress(Exception):
                entry.recover()
    return max(numbers)


def require_free(entries: Sequence[Entry], run_id: str) -> None:
    """UserError where some of them know a run of that id."""
    for entry in entries:
        with _in_one_line(name_of(entry)):
            known = entry.began(_as_stored(run_id))
        if known:
            raise UserError(f"--id: {name_of(entry)} knows a run {run_id} already")


@contextmanager
def observed_by(experiment: Experiment, observers: Sequence[RunObserver]) -> Iterator[None]:
    """The experiment with these alone; afterwards with those that it had."""
    before = list(experiment.observers)
    experiment.observers[:] = observers
    try:
        yield
    finally:
        experiment.observers[:] = before


class Beside(RunObserver):
    """An observer that is told what happens to a run, and cannot harm it.

    What it raises is said in one line, and it is left alone until the run ends: then it is told all
    of it once more, and that it ended.
    """

    def __init__(self, entry: Entry, recorder: RunFolder):
        self.entry, self.recorder = entry, recorder
        self.priority = entry.observer.priority
        self.lock = threading.RLock()  # heartbeats have a thread of their own
        self.listens = self.begun = self.warned = False
        self.said_before = ""

    @contextmanager
    def _excused(self) -> Iterator[None]:
        with self.lock:
            try:
                yield
            except Exception as error:
                self.listens = False
                if not self.warned:
                    self.warned = True
                    what = f"warning: {name_of(self.entry)}: {_line(error)}"
                    tqdm.write(f"{what}; the run goes on, and {self.recorder.dir} has all of it")
                with suppress(Exception):
                    self.entry.recover()

    def _tell(self, event: str, **said) -> None:
        with self._excused():
            if self.listens:
                getattr(self.entry, event)(**said)

    def queued_event(self, _id, ex_info, **said) -> None:
        with self._excused():
            self.entry.observer.queued_event(_id=_as_stored(_id), ex_info={**ex_info}, **said)

    def started_event(self, _id, ex_info, start_time, **said) -> None:
        folder, run_id = Path(self.recorder.dir), _as_stored(_id)
        with self._excused():
            # Of one that goes on: when it first began.
            began = datetime.fromisoformat(self.recorder.run_entry["start_time"])
            said |= {"_id": run_id, "ex_info": {**ex_info}, "start_time": began}
            self.entry.own = {}
            known = self.entry.began(run_id)
            resuming = self.recorder.resuming
            if known and not (resuming and _same_time(known, began)):
                raise FileExistsError(f"it knows another run {run_id}")
            (self.entry.go_on if known else self.entry.start)(**said)
            self.begun = self.listens = True
            if resuming:  # of what was logged after the checkpoint, nothing
                self.said_before = _said(folder)
                self.entry.put_metrics(measured(folder))

    def heartbeat_event(self, captured_out, **said) -> None:
        text = self.said_before + captured_out.encode(errors="backslashreplace").decode()
        self._tell("heartbeat", captured_out=text, **said)

    def log_metrics(self, metrics_by_name, info) -> None:
        if metrics_by_name:
            self._tell("log_metrics", metrics_by_name=metrics_by_name, info=info)

    def artifact_event(self, name, filename, metadata=None, content_type=None) -> None:
        # Sacred's prints a line where it has to guess.
        kind = content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        with self._excused():
            if self.listens:
                self.entry.drop_artifact(name)
                self.entry.observer.artifact_event(
                    name=name, filename=filename, metadata=metadata, content_type=kind
                )

    def resource_event(self, filename) -> None:
        with self._excused():
            if self.listens:
                self.entry.observer.resource_event(filename=filename)

    def completed_event(self, stop_time, result) -> None:
        self._end("completed_event", stop_time, stop_time=stop_time, result=result)

    def interrupted_event(self, interrupt_time, status) -> None:
        said = {"interrupt_time": interrupt_time, "status": status}
        self._end("interrupted_event", interrupt_time, **said)

    def failed_event(self, fail_time, fail_trace) -> None:
        self._end("failed_event", fail_time, fail_time=fail_time, fail_trace=fail_trace)

    def _end(self, event: str, now: datetime, **said) -> None:
        folder = Path(self.recorder.dir)
        with self._excused():
            self.listens = False  # Sacred's last heartbeat may be late
            if self.begun:
                self.entry.reach()
                self.entry.put_metrics(measured(folder))
                whole = {"info": _info(folder), "captured_out": _said(folder)}
                self.entry.heartbeat(**whole, beat_time=now, result=said.get("result"))
        with self._excused():  # also of a run too large for it
            if self.begun:
                self.entry.end(event, **said)

    def join(self) -> None:
        with self._excused():
            self.entry.observer.join()


def _same_time(stored: datetime, exact: datetime) -> bool:
    """Data bases keep a time to the millisecond, or to the second."""
    kept = timedelta(milliseconds=1) if stored.microsecond else timedelta(seconds=1)
    return abs(stored - exact) < kept


def _as_stored(run_id: str | None) -> int | str | None:
    """As Sacred's data bases count: a MongoDB with texts among its numbers could not any more."""
    return int(run_id) if run_id and str(run_id).isdecimal() else run_id


def _info(folder: Path) -> dict:
    with suppress(FileNotFoundError):  # it stopped before there was any
        return json.loads((folder / "info.json").read_text(encoding="utf-8"))
    return {}


def _said(folder: Path) -> str:
    return (folder / "cout.txt").read_text(encoding="utf-8", errors="replace")


def measured(folder: Path) -> dict:
    """All metrics of a run so far."""
    with suppress(FileNotFoundError):  # none yet
        return metrics_file.read(folder)
    return {}
