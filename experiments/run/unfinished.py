"""Runs that are not complete, to be looked at while they go on."""

from contextlib import suppress
from pathlib import Path

from experiments.run.identity import on_any_device
from experiments.run.locks import sole_user
from experiments.run.stored import (
    Record,
    StoredRun,
    Unreadable,
    read_record,
    read_run,
    run_folders,
)
from forgetting.errors import UserError


def unfinished_runs(*folders: str | Path) -> list[StoredRun]:
    """The runs in `folders` that are running or interrupted and have logged something, of equal
    ones the one furthest on."""
    found: dict[str, StoredRun] = {}
    for path in (path for folder in map(Path, folders) for path in run_folders(folder)):
        with suppress(Unreadable):  # `runs_and_rest` names it; or there is nothing logged yet
            record = read_record(path)
            if record.status in ("RUNNING", "INTERRUPTED") and not record.copy_of:
                run = read_run(path, _status(record))
                key = on_any_device(run.identity)
                found[key] = max(found.get(key, run), run, key=lambda run: run.updates)
    return list(found.values())


def _status(record: Record) -> str:
    """A run that was killed says that it is running, and nobody holds it."""
    if record.status == "RUNNING":
        try:
            with sole_user(record.folder):
                pass
        except UserError:  # held; or it cannot be told
            return "running"
    return "interrupted"
