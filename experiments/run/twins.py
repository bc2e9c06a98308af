"""Runs that are there already: the one to go on with, the one that is complete, what they took."""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import PROJECT
from experiments.run import checkpoints
from experiments.run.identity import as_text, identity, same
from experiments.run.locks import Held, sole_user
from experiments.run.resolve import resolve
from experiments.run.stored import Record, Unreadable, read_record, read_run, run_folders
from experiments.run.study import Study
from forgetting import data
from forgetting.errors import UserError

REFERENCE = PROJECT / "results/reference"
HELD = "held by another process"


def find(
    folder: Path, wanted: Mapping[str, Any], but: Collection[str] = (), any_device: bool = False
) -> tuple[Record | None, str | None]:
    """(record, status) of a run with the identity `wanted` (but some of it): a complete one, else
    one that another process is working on (its status: HELD), else the one furthest on that can be
    gone on with, else (None, None). A run's copy is not gone on with: it was made to be kept; nor
    is one in a zip. any_device: those that are complete or worked on may be of another device than
    the wanted one, which alone can go on with its own."""
    elsewhere = {*but, "device"} if any_device else but
    unfinished: list[tuple[float, str, Record, str]] = []
    for run in run_folders(folder):
        try:
            record = read_record(run)
        except Unreadable:
            continue  # the figures name it
        if not same(record.identity, wanted, elsewhere):
            continue
        if record.status == "COMPLETED":
            try:
                read_run(run)
                return record, record.status
            except Unreadable as error:
                print(f"warning: {run} says it is complete, but {error}; passed over")
                continue
        if not isinstance(run, Path):
            continue
        if record.copy_of:
            print(f"warning: {run} is a copy of run {record.copy_of}; passed over")
            continue
        if record.status != "RUNNING" and not checkpoints.stored(run):
            continue
        try:
            with sole_user(run):
                if not same(record.identity, wanted, but):
                    continue
                checkpoint = checkpoints.load(run)
                if checkpoint:
                    position = checkpoint["study"]["position"]
                    unfinished.append((position, run.name, record, record.status))
                elif checkpoints.stored(run):
                    print(f"warning: no checkpoint of {run} is whole; passed over")
        except Held:
            unfinished.append((math.inf, run.name, record, HELD))
        except UserError as error:
            print(f"warning: {error}")
    return max(unfinished, key=lambda found: found[:2])[2:] if unfinished else (None, None)


@dataclass(frozen=True)
class Known:
    """What is stored of a run. kind: equal for runs that differ in the seed alone; done: the share
    of its updates that a checkpoint holds; seconds: what it takes in all, as far as it says;
    shipped_seconds: what one shipped with the project took that differs in seed, images and
    precision alone; data: what dataset.name=auto means here, None where it was named."""

    id: str | None
    status: str | None
    kind: str
    arm: str
    seed: int
    done: float
    seconds: float | None
    shipped_seconds: float | None
    data: str | None


def known(
    study: Study, settings: Mapping[str, Any], load: Callable = data.load, elsewhere: bool = False
) -> Known:
    """What is stored of the one run that `settings` ask for. Raises UserError for bad ones.

    load: `forgetting.data.load`, or what remembers its answers. elsewhere: the run will not be on
    this machine, which cannot know what an automatic device and precision are there. Where the
    device is automatic, a run that any has completed, or is working on, is the run.
    """
    was_auto, any_device = settings["dataset.name"] == "auto", settings["device"] == "auto"
    asked = {key: settings[key] for key in ("device", "precision")} if elsewhere else {}
    here = {**settings, "device": "cpu", "precision": "fp32"} if elsewhere else dict(settings)
    # Not on a GPU: its memory is for the runs.
    settings, dataset = resolve(here, study.least_classes, load, onto_device=False)
    settings |= asked
    study.check(settings, dataset)
    if settings[study.arm] is None:
        raise UserError(f"{study.arm}: name one for every run")
    open_here = [key for key, value in asked.items() if value == "auto"]
    files = study.parse(settings[study.arm]).content
    facts = {"images": dataset.fingerprint, "files": files, **study.facts(settings)}
    wanted = identity(study, settings, **facts)
    record, status = find(Path(settings["results_dir"]), wanted, open_here, any_device)
    done, seconds = 0.0, None
    if status == "COMPLETED":
        done, seconds = 1.0, record.seconds
    elif record and (stored := checkpoints.stored(record.folder)):
        done = checkpoints.step_of(stored[0]) / study.updates(settings, dataset)
        # What came before the first update, such as a first probe, is not in proportion.
        seconds = record.seconds / done if record.seconds and done > 0.02 else None
    return Known(
        record.folder.name if record else None,
        status,
        as_text({key: value for key, value in wanted.items() if key != "seed"}),
        wanted[study.arm],
        settings["seed"],
        done,
        seconds,
        _shipped_seconds(wanted, open_here),
        settings["dataset.name"] if was_auto else None,
    )


@functools.cache
def _shipped() -> list[Record]:
    """The runs that are shipped with the project."""
    found = []
    for run in run_folders(REFERENCE):
        with suppress(Unreadable):  # the figures name it
            found.append(read_record(run))
    return found


def _shipped_seconds(wanted: Mapping[str, Any], but: Sequence[str]) -> float | None:
    """What a run shipped with the project took that differs in seed, images, precision and `but`
    alone."""
    other = ("seed", "dataset.name", "images", "extractor", "precision", *but)
    return next((run.seconds for run in _shipped() if same(run.identity, wanted, other)), None)
