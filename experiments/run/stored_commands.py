"""A study's commands on runs that are stored, and what a stored run is held to."""

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from experiments.run import checkpoints, process
from experiments.run.resolve import resolve
from experiments.run.stored import Record, Unreadable, read_record, run_folders
from experiments.run.study import Study
from forgetting import data
from forgetting.arms import canonical
from forgetting.errors import UserError
from forgetting.settings import with_defaults

# Resolved when a run begins, so that they contradict nothing when it is taken up again.
LEFT_OPEN = (
    *(("device", "auto"), ("precision", "auto"), ("dataset.name", "auto")),
    *((key, None) for key in ("dataset.size", "dataset.label", "preset", "method", "model")),
)


def apply(
    command: str, study: Study, settings: Mapping[str, Any], explicit: Mapping[str, Any]
) -> int:
    """Do it for the run that is named, or for all it can be for; the exit code. Of several runs,
    one that cannot be done leaves the others alone."""
    run_ids, failed = _meant(study, settings, command), 0
    for run_id in run_ids:
        named = {**settings, "resume": run_id}
        try:
            print(_apply(study.commands[command], study, named, explicit))
        except UserError as error:
            if len(run_ids) == 1:
                raise
            print(f"error: run {run_id}: {error}", file=sys.stderr)
            failed = 1
    return failed


def _meant(study: Study, settings: Mapping[str, Any], command: str) -> list[str]:
    """The ids of the runs that a command is for: the one that is named, or all it can be for."""
    if settings["resume"] not in (None, "auto"):
        return [settings["resume"]]
    if command not in study.for_all:
        raise UserError("resume: name the run, as in: with resume=3")
    found = []
    for run in run_folders(Path(settings["results_dir"])):
        with suppress(Unreadable):
            record = read_record(run)
            if record.study.name == study.name and study.for_all[command](record):
                found.append(run.name)
    if not found:
        raise UserError(f"results_dir: no run in {settings['results_dir']} is for {command}")
    return found


def _apply(
    command: Callable[[Any, Path], str], study: Study, settings: Mapping, explicit: Mapping
) -> str:
    """Rebuild the study of run `resume` from its last checkpoint and apply a command to it."""
    folder, run_id = Path(settings["results_dir"]), settings["resume"]
    record = require_run(folder, run_id, study)
    where = [key for key in ("device", "precision") if key in explicit]  # may be another one
    elsewhere = {"precision": "fp32"} | {key: settings[key] for key in ("device", *where)}
    refuse_other_settings(settings, explicit.keys() - elsewhere.keys(), record)
    elsewhere |= {k: settings[k] for k in ("dataset.root", "dataset.memory_mb") if k in explicit}
    whole = with_defaults(record.settings, study.settings)
    whole, dataset = resolve({**whole, **elsewhere}, study.least_classes)
    checkpoint = load_checkpoint(folder / run_id, dataset)
    device = torch.device(whole["device"])
    process.prepare(device, whole["precision"])
    autocast = functools.partial(torch.autocast, device.type, enabled=False)
    learner = study.build(whole, dataset, device, autocast, fresh=False, to_train=False)
    learner.load_state_dict(checkpoint["study"])
    return command(learner, folder / run_id)


def require_run(folder: Path, run_id: str, study: Study) -> Record:
    """A run that is there, of this study; a UserError where there is none."""
    try:
        record = read_record(folder / run_id)
    except Unreadable as error:
        raise UserError(f"resume: there is no readable run {folder / run_id}: {error}") from None
    if record.study.name != study.name:
        raise UserError(f"resume: {folder / run_id} is a run of another experiment")
    return record


def refuse_other_settings(settings: dict, explicit, record: Record) -> None:
    """Raise UserError where a setting that was asked for is not as the run was started with."""
    stored, asked = (with_defaults(of, record.study.settings) for of in (record.settings, settings))
    arm, incidental = record.study.arm, record.study.incidental
    for of in (stored, asked):  # however it is written, and wherever its files are
        of[arm] = of[arm] and canonical(of[arm], record.study.models)
    differing = [
        f"{key} (stored {stored.get(key)!r}, asked {asked[key]!r})"
        for key in explicit
        if key not in incidental
        and asked[key] != stored.get(key)
        and (key, asked[key]) not in LEFT_OPEN
    ]
    if differing:
        raise UserError(
            f"resume: {record.folder} was started with other settings: {', '.join(differing)}"
        )


def load_checkpoint(run: Path, dataset: data.Dataset) -> dict:
    """A run's last whole one, where it began on these images; else a UserError."""
    checkpoint = checkpoints.load(run)
    if checkpoint is None:
        raise UserError(f"resume: {run} has no checkpoint that is whole")
    if checkpoint["fingerprint"] != dataset.fingerprint:
        raise UserError(f"resume: the images are not those that {run} began on")
    return checkpoint
