"""Sacred's file observer, made to write whole files and to take up a run again."""

import json
import math
import os
import shutil
from pathlib import Path

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten

from experiments.run import metrics_file
from forgetting.errors import UserError
from forgetting.files import write_atomically


def make_results_folder(folder: Path) -> None:
    """Raises UserError where it cannot be made, or nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"results_dir: cannot write to {folder}; choose a folder that can be")


class RunFolder(FileStorageObserver):
    """An ordinary Sacred run folder (config.json, run.json, metrics.json, cout.txt).

    Sacred's own observer writes in place: killed in the middle of it, a run is unreadable. It also
    reads all metrics back at each heartbeat and writes them again; this one does at the end alone.
    Until then it is given them by `add_metrics`: a checkpoint cannot wait for a heartbeat.

    It gives a run its id, and is told of everything before other observers are.

    metrics: those of a run to take up again, as metrics.json holds them, else None.
    """

    taken = 0  # the largest number of a run that other observers know

    def __init__(self, folder: str | Path, metrics: dict | None = None):
        super().__init__(folder, copy_sources=False, priority=math.inf)
        self.resuming = metrics is not None
        self.metrics = metrics
        self.logged = {name: len(m["steps"]) for name, m in (metrics or {}).items()}
        self.failure: OSError | None = None  # Sacred goes on without an observer that fails
        self.whole = False  # whether all that was measured is written
        self.empty = True  # whether nothing has been learnt in it yet
        self.before: dict = {}  # of a run that is taken up again: what its record keeps

    def _maximum_existing_run_id(self):
        return max(super()._maximum_existing_run_id(), self.taken)

    def remove(self) -> None:
        """Take back a run that failed before it had learnt anything, where it has a folder yet."""
        if self.dir and self.failure is None:  # else its message names the folder
            shutil.rmtree(self.dir, ignore_errors=True)

    def _make_run_dir(self, _id):
        if self.resuming:
            self.dir = os.path.join(self.basedir, str(_id))
        else:
            super()._make_run_dir(_id)

    def started_event(self, ex_info, command, host_info, start_time, config, meta_info, _id):
        if self.resuming:
            # The run began when it first began, and what it made is still there: in every record
            # from the first on, for the next kill may come at once.
            before = json.loads(
                (Path(self.basedir) / str(_id) / "run.json").read_text(encoding="utf-8")
            )
            self.before = {key: before[key] for key in ("start_time", "artifacts", "meta")}
        ex_info = {**ex_info}  # Sacred writes into it, and other observers would read that
        _id = super().started_event(ex_info, command, host_info, start_time, config, meta_info, _id)
        self.run_entry.update(self.before)
        self.before = {}
        if self.resuming:
            # Of what it logged after its checkpoint, nothing.
            self._write(metrics_file.write, self.metrics)
            self.metrics = None
        return _id

    def heartbeat_event(self, info, captured_out, beat_time, result):
        # A path of bytes that are no text, say.
        captured_out = captured_out.encode(errors="backslashreplace").decode()
        try:
            super().heartbeat_event(info, captured_out, beat_time, result)
        except OSError as error:
            self.failure = error
            raise

    def add_metrics(self, metrics: dict) -> None:
        """Of all that a run measured so far, write what is not on the disk yet. Raises OSError."""
        new = {}
        for name, columns in metrics.items():
            before = self.logged.get(name, 0)
            if len(columns["steps"]) > before:
                new[name] = {"from": before, **{key: m[before:] for key, m in columns.items()}}
        self._write(metrics_file.append, new)
        self.logged |= {name: len(metrics[name]["steps"]) for name in new}

    def log_metrics(self, metrics_by_name, info):
        """At a heartbeat: nothing, for they are written already."""

    def write_all(self, metrics: dict, info: dict) -> None:
        """What a run measured, before it counts as complete: Sacred's last heartbeat may be late,
        or not come at all. OSError where it cannot be written."""
        self._write(metrics_file.write, metrics)
        self.save_json(info, "info.json")
        self.whole = self.failure is None

    def completed_event(self, stop_time, result):
        measured, self.whole = self.whole, False
        super().completed_event(stop_time, result)
        self.whole = measured  # the record is written, too

    def interrupted_event(self, interrupt_time, status):
        super().interrupted_event(interrupt_time, status)
        self._gather()

    def failed_event(self, fail_time, fail_trace):
        super().failed_event(fail_time, fail_trace)
        self._gather()

    def _gather(self):
        if Path(self.dir, "metrics.jsonl").exists():
            self._write(metrics_file.write, metrics_file.read(Path(self.dir)))

    def save_json(self, obj, filename):
        if filename == "run.json":
            # Named as in Sacred's data bases: by it a copy of the folder tells that it is one.
            obj = {**obj, "_id": Path(self.dir).name, **self.before}
        text = json.dumps(flatten(obj), sort_keys=True, indent=2)
        self._write(lambda folder: write_atomically(Path(folder) / filename, text.encode()))

    def _write(self, write, *content):
        try:
            write(self.dir, *content)
        except OSError as error:
            self.failure = error
            raise

    def artifact_event(self, name, filename, metadata=None, content_type=None):
        if name not in self.run_entry["artifacts"]:  # one that is written anew is listed once
            super().artifact_event(name, filename, metadata, content_type)
