"""The one runner: from a command line to stored Sacred runs, for any study.

It reads the command line as Sacred does, checks and resolves every setting, loads the data, and
only then starts a Sacred run; so what is stored is what ran, and a mistake leaves nothing behind.
A study is anything with total_steps, position, info, step(), evaluation_due(), evaluate(),
artifacts(), status(), summary() and state_dict()/load_state_dict(). Nothing here knows which.
"""

import functools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from docopt import DocoptExit, docopt
from sacred import SETTINGS, Experiment, Ingredient
from sacred.arg_parser import get_config_updates
from sacred.initialize import create_run

from experiments import PROJECT
from experiments.run import checkpoints
from experiments.run.loop import (
    TRY_LATER,
    Diverged,
    Held,
    Interrupted,
    Stop,
    require_written,
    run_to_the_end,
    sole_user,
)
from experiments.run.observer import RunFolder
from forgetting import data
from forgetting.devices import bf16_is_native
from forgetting.errors import UserError
from forgetting.settings import Rule, check_key, flat, nested, validate

__all__ = [
    "PROJECT",
    "Experiment",
    "Ingredient",
    "Study",
    "default_path",
    "has_code_version",
    "main",
]

REFERENCE = PROJECT / "results/reference"
# How and where a run proceeds; a run may be taken up again with other values of these.
NOT_THE_RUN = (
    *("resume", "stop_after", "checkpoint_every", "results_dir"),
    *("dataset.root", "dataset.memory_mb"),
)

# Resolved when a run begins, so that they contradict nothing when it is taken up again.
LEFT_OPEN = (
    *(("device", "auto"), ("precision", "auto"), ("dataset.name", "auto")),
    *((key, None) for key in ("dataset.size", "dataset.label", "preset", "method", "model")),
)

# File descriptors would be captured from the progress bar, too; and the code version is git's.
SETTINGS.CAPTURE_MODE = "sys"
SETTINGS.DISCOVER_SOURCES = "none"


@dataclass(frozen=True)
class Study:
    """What the runner needs to know of a study.

    arm: the setting that names a run's arm; unset, each of `default_arms` becomes a run.
    check(settings, dataset): raises UserError where settings and data do not fit each other.
    build(settings, dataset, device, autocast): the study, ready to step; with to_train=False, where
    there are commands, as much of it as they need.
    updates(settings, dataset): how many there are in a run.
    least_classes: 1 where images without labels (one class folder) will do.
    commands: name -> function(study, folder of the run) -> a line to print, for a stored run.
    """

    arm: str
    default_arms: Sequence[str]
    rules: Mapping[str, Rule]
    check: Callable[[Mapping[str, Any], data.Dataset], None]
    build: Callable[[Mapping[str, Any], data.Dataset, torch.device, Callable], Any]
    updates: Callable[[Mapping[str, Any], data.Dataset], int]
    least_classes: int = 2
    commands: Mapping[str, Callable[[Any, Path], str]] = field(default_factory=dict)


def has_code_version() -> bool:
    """Whether git can tell the project's commit. Where it cannot, Sacred must not ask."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(PROJECT), "rev-parse", "--verify", "HEAD"], capture_output=True
        )
    except OSError:
        return False
    return asked.returncode == 0


def default_path(inside: str) -> str:
    """A path in the project, as seen from the current folder."""
    return os.path.relpath(PROJECT / inside)


def main(experiment: Experiment, study: Study, argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a mistake (one line on stderr), 2 unreadable
    arguments, 130 or 143 interrupted, 75 stopped by stop_after or held by another process."""
    argv = list(sys.argv if argv is None else argv)
    try:
        sys.exit(_main(experiment, study, argv))
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except Diverged as error:
        print(f"error: the run diverged: {error}", file=sys.stderr)
    except Exception as error:
        if {"-d", "--debug", "-D", "--pdb"} & set(argv):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"error: {type(error).__name__}: {reason} (-d shows where)", file=sys.stderr)
    sys.exit(1)


def _main(experiment: Experiment, study: Study, argv: list[str]) -> int:
    job = {}  # what Sacred's configuration cannot carry: the data, a checkpoint, the clock

    @experiment.main
    def train(_run):
        """Train, evaluate and store one run an arm."""
        return run_to_the_end(_run, study, **job)

    options = _parse(experiment, argv)
    if options is None:
        return 0
    command = options["COMMAND"] or experiment.default_command
    if command not in experiment.commands:
        raise UserError(f"{command}: no such command; {', '.join(experiment.commands)} are")
    updates, presets = _read_updates(experiment, study, options)
    settings = _settings(experiment, study, updates, presets)
    if command in study.commands:
        explicit = flat(updates) if not presets else settings
        print(_apply_command(study, settings, explicit, study.commands[command]))
        return 0
    if command != experiment.default_command:
        experiment.run(command, nested(settings), options=options)
        return 0

    folder = Path(settings["results_dir"])
    if settings["resume"] not in (None, "auto"):
        explicit = flat(updates) if not presets else settings
        settings = _settings_to_resume(folder, settings, explicit, study)
    settings, dataset = resolve(settings, study.least_classes)
    study.check(settings, dataset)
    if not options["--unobserved"]:
        _make_results_folder(folder)
    print(
        f"preset {settings['preset']} on {dataset.label}, {settings['device']}, "
        f"{settings['precision']}; choose another with: with quick | cpu | paper"
    )
    arms = [settings[study.arm]] if settings[study.arm] else study.default_arms
    if options["--id"] and len(arms) > 1:
        raise UserError(f"--id: it names one run; set {study.arm}, too")
    done, held = None, False
    with Stop(settings["stop_after"]) as stop:
        for arm in arms:
            if not stop.exit_code():
                job.update(settings={**settings, study.arm: arm}, dataset=dataset, stop=stop)
                held |= _run_arm(experiment, study, job, options, presets)
                done = arm
        # An end asked for during the last step of an arm lets that arm finish.
        return (TRY_LATER if held else 0) if done == arms[-1] else stop.exit_code()


# ------------------------------------------------------------------ the command line


def _parse(experiment: Experiment, argv: list[str]) -> dict | None:
    """Sacred's own options and usage; None where help was asked for and given."""
    _, usage, internal_usage = experiment.get_usage(argv[0])
    try:
        options = docopt(internal_usage, argv[1:], default_help=False)
    except DocoptExit:
        print(f"error: cannot read these arguments; see {argv[0]} --help", file=sys.stderr)
        sys.exit(2)
    if options["help"] or options["--help"]:
        print(usage)
        return None
    # Sacred's -F would be a second file observer beside ours: it means results_dir.
    if options["--file_storage"]:
        options["UPDATE"] = [*options["UPDATE"], f"results_dir={options['--file_storage']!r}"]
        options["--file_storage"] = None
    options["--loglevel"] = options["--loglevel"] or "CRITICAL"
    return options


def _read_updates(experiment: Experiment, study: Study, options: dict) -> tuple[dict, list[str]]:
    for update in options["UPDATE"]:
        key, equals, _ = update.partition("=")
        if equals:
            check_key(key.strip(), study.rules)
        elif key not in experiment.named_configs:
            known = ", ".join(experiment.named_configs)
            raise UserError(f"{key}: no such preset; there are {known}; a setting is KEY=VALUE")
    updates, presets = get_config_updates(options["UPDATE"])
    if "preset" in updates:
        raise UserError("preset: choose one by its name alone, as in: with cpu")
    return updates, presets


def _settings(experiment: Experiment, study: Study, updates: dict, presets: list) -> dict:
    """All settings, flat and checked, before anything is looked up."""
    if not presets:
        presets = ["paper" if torch.cuda.is_available() else "quick"]
    validate(flat(updates), study.rules)  # before Sacred seeds itself with what may be no seed
    config = create_run(experiment, "print_config", updates, presets, log_level="CRITICAL").config
    # Sacred takes a preset's docstring for a setting.
    return validate({k: v for k, v in flat(config).items() if k != "__doc__"}, study.rules)


def resolve(
    settings: dict, least_classes: int, load: Callable = data.load, onto_device: bool = True
) -> tuple[dict, data.Dataset]:
    """Replace every `auto` by what it means here, and load the data, onto its device or not."""
    settings = dict(settings)
    if settings["device"] == "auto":
        settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise UserError("device: there is no CUDA device here; use device=cpu or device=auto")
    if settings["precision"] == "auto":
        settings["precision"] = "bf16" if bf16_is_native(settings["device"]) else "fp32"
    if settings["dataset.name"] == "auto":
        name, why = data.choose(settings["dataset.root"])
        if name == "digits" and settings["preset"] in ("cpu", "paper"):
            raise UserError(
                f"dataset.name: the preset {settings['preset']} needs CIFAR-10, and {why}; put "
                f"cifar-10-batches-py there, or use dataset.name=image_folder dataset.root=DIR, "
                f"or the preset quick"
            )
        print(f"DATA: dataset.name=auto takes {name}, because {why}")
        settings["dataset.name"] = name
    dataset = load(
        settings["dataset.name"],
        settings["dataset.root"],
        settings["dataset.size"],
        settings["dataset.label"],
        least_classes,
        _memory_for_images(settings, onto_device),
    )
    settings["dataset.root"] = os.path.abspath(settings["dataset.root"])
    settings["dataset.size"] = dataset.train_images.shape[-1]
    settings["dataset.label"] = dataset.label
    return settings, dataset.to(settings["device"] if onto_device else "cpu")


def _memory_for_images(settings: dict, onto_device: bool) -> int | None:
    """Bytes that a folder's images may take, on the device too; None: half of the machine's."""
    if settings["dataset.memory_mb"]:
        return settings["dataset.memory_mb"] * 10**6
    if settings["device"] == "cuda" and onto_device:
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min(host, torch.cuda.mem_get_info()[1]) // 2
    return None


# ------------------------------------------------------------------ runs that are there already


def _stored(folder: Path, run_id: str, study: Study) -> tuple[str, dict]:
    """Status and settings of run `run_id`."""
    run = folder / run_id
    try:
        status = json.loads((run / "run.json").read_text())["status"]
        settings = flat(json.loads((run / "config.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"resume: there is no readable run {run}") from None
    if study.arm not in settings:
        raise UserError(f"resume: {run} is a run of another experiment")
    return status, validate(settings, study.rules)


def _settings_to_resume(
    folder: Path, settings: dict, explicit: Mapping[str, Any], study: Study
) -> dict:
    """The settings that run `resume` was started with, refusing any that is now asked otherwise.

    explicit: the settings that were asked for; the others of `settings` are defaults.
    """
    status, stored = _stored(folder, settings["resume"], study)
    if status == "COMPLETED":
        raise UserError(f"resume: {folder / settings['resume']} is complete already")
    _refuse_other_settings(folder, settings, explicit, stored)
    kept = {"dataset.root", "dataset.memory_mb", "checkpoint_every"} - explicit.keys()
    return {**stored, **{key: settings[key] for key in NOT_THE_RUN if key not in kept}}


def _refuse_other_settings(folder: Path, settings: dict, explicit, stored: dict) -> None:
    differing = [
        f"{key} (stored {stored.get(key)!r}, asked {settings[key]!r})"
        for key in explicit
        if key not in NOT_THE_RUN
        and settings[key] != stored.get(key)
        and (key, settings[key]) not in LEFT_OPEN
    ]
    if differing:
        run = folder / settings["resume"]
        raise UserError(f"resume: {run} was started with other settings: {', '.join(differing)}")


HELD = "held by another process"


def _twin(
    folder: Path, study: Study, settings: dict, fingerprint: str, but: Sequence[str] = ()
) -> tuple[str | None, str | None]:
    """(id, status) of a run of the same settings (but some) on the same images: a complete one,
    else one that another process is working on (its status: HELD), else the one furthest on that
    can be gone on with, else (None, None)."""
    left_out = {*NOT_THE_RUN, *but}
    wanted = {k: v for k, v in settings.items() if k not in left_out}
    unfinished: list[tuple[float, str, str]] = []
    for run in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            status, stored = _stored(folder, run.name, study)
        except UserError:
            continue
        if {k: v for k, v in stored.items() if k not in left_out} != wanted:
            continue
        if _images_of(run) not in (fingerprint, None):
            continue
        if status == "COMPLETED":
            return run.name, status
        if status != "RUNNING" and not checkpoints.stored(run):
            continue
        try:
            with sole_user(run):
                checkpoint = checkpoints.load(run)
                if checkpoint:
                    unfinished.append((checkpoint["study"]["position"], run.name, status))
                elif checkpoints.stored(run):
                    print(f"warning: no checkpoint of {run} is whole; passed over")
        except Held:
            unfinished.append((math.inf, run.name, HELD))
        except UserError as error:
            print(f"warning: {error}")
    return max(unfinished)[1:] if unfinished else (None, None)


def _images_of(run: Path) -> str | None:
    """The fingerprint of the images that a run was trained on; None where that is not known yet."""
    try:
        return json.loads((run / "info.json").read_text())["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Known:
    """What is stored of a run. kind: equal for runs that differ in the seed alone; done: the share
    of its updates that a checkpoint holds; seconds: what it takes in all, as far as it says;
    shipped_seconds: what one shipped with the project took that differs in seed, images and
    precision alone;
    data: what dataset.name=auto means here, None where it was named."""

    id: str | None
    status: str | None
    kind: str
    arm: str
    seed: int
    done: float
    seconds: float | None
    shipped_seconds: float | None
    data: str | None


def look_up(
    experiment: Experiment,
    study: Study,
    words: Sequence[str],
    load: Callable = data.load,
    elsewhere: bool = False,
) -> Known:
    """What is stored of the one run that `with WORDS` asks for. Raises UserError for bad words.

    load: `forgetting.data.load`, or what remembers its answers. elsewhere: the run will not be on
    this machine, which cannot know what an automatic device and precision are there.
    """
    options = _parse(experiment, [experiment.path, "with", *words])
    settings = _settings(experiment, study, *_read_updates(experiment, study, options))
    was_auto = settings["dataset.name"] == "auto"
    asked = {key: settings[key] for key in ("device", "precision")} if elsewhere else {}
    here = {**settings, "device": "cpu"} if elsewhere else settings
    # Not on a GPU: its memory is for the runs.
    settings, dataset = resolve(here, study.least_classes, load, onto_device=False)
    settings |= asked
    study.check(settings, dataset)
    if settings[study.arm] is None:
        raise UserError(f"{study.arm}: name one for every run")
    folder = Path(settings["results_dir"])
    settings["resume"] = None
    open_here = [key for key, value in asked.items() if value == "auto"]
    run_id, status = _twin(folder, study, settings, dataset.fingerprint, open_here)
    done, seconds = 0.0, None
    if status == "COMPLETED":
        done, seconds = 1.0, _seconds(folder / run_id)
    elif run_id and (stored := checkpoints.stored(folder / run_id)):
        step = int(checkpoints.NAME.fullmatch(stored[0].name)[1])
        done = step / study.updates(settings, dataset)
        spent = _seconds(folder / run_id)
        # What came before the first update, such as a first probe, is not in proportion.
        seconds = spent / done if spent and done > 0.02 else None
    kind = {k: v for k, v in settings.items() if k not in (*NOT_THE_RUN, "seed")}
    kind["images"] = dataset.fingerprint
    return Known(
        run_id,
        status,
        repr(kind),
        settings[study.arm],
        settings["seed"],
        done,
        seconds,
        _shipped_seconds(study, settings, open_here),
        settings["dataset.name"] if was_auto else None,
    )


def _seconds(run: Path) -> float | None:
    """What a stored run took so far, as far as it says."""
    try:
        info = json.loads((run / "info.json").read_text())
        return float(sum(info["seconds"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@functools.cache
def _shipped() -> list[tuple[dict, float | None]]:
    """The settings of each run that is shipped with the project, and what it took."""
    configs = sorted(REFERENCE.glob("*/config.json"))
    return [(flat(json.loads(path.read_text())), _seconds(path.parent)) for path in configs]


def _shipped_seconds(study: Study, settings: dict, but: Sequence[str]) -> float | None:
    """What a run shipped with the project took that differs in seed, images, precision and `but`
    alone."""
    left_out = {*NOT_THE_RUN, "seed", "dataset.name", "dataset.label", "precision", *but}
    for shipped, seconds in _shipped():
        if study.arm in shipped:
            stored = validate(shipped, study.rules)
            if all(stored.get(k) == v for k, v in settings.items() if k not in left_out):
                return seconds
    return None


def _make_results_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"results_dir: cannot write to {folder}; choose a folder that can be")


def _apply_command(study, settings, explicit, command) -> str:
    """Rebuild the study of run `resume` from its last checkpoint and apply a command to it."""
    folder, run_id = Path(settings["results_dir"]), settings["resume"]
    if run_id in (None, "auto"):
        raise UserError("resume: name the run, as in: with resume=3")
    _, stored = _stored(folder, run_id, study)
    where = [key for key in ("device", "precision") if key in explicit]  # may be another one
    elsewhere = {key: settings[key] for key in ("device", *where)}
    _refuse_other_settings(folder, settings, explicit.keys() - elsewhere, stored)
    elsewhere |= {k: settings[k] for k in ("dataset.root", "dataset.memory_mb") if k in explicit}
    stored, dataset = resolve({**stored, **elsewhere}, study.least_classes)
    checkpoint = _load_checkpoint(folder / run_id, dataset)
    device = torch.device(stored["device"])
    autocast = functools.partial(torch.autocast, device.type, enabled=False)
    learner = study.build(stored, dataset, device, autocast, to_train=False)
    learner.load_state_dict(checkpoint["study"])
    return command(learner, folder / run_id)


def _load_checkpoint(run: Path, dataset: data.Dataset) -> dict:
    checkpoint = checkpoints.load(run)
    if checkpoint is None:
        raise UserError(f"resume: {run} has no checkpoint that is whole")
    if checkpoint["fingerprint"] != dataset.fingerprint:
        raise UserError(f"resume: the images are not those that {run} began on")
    return checkpoint


# ------------------------------------------------------------------ one run


def _run_arm(experiment, study, job, options, presets) -> bool:
    """Bring one arm's run to its end, or exit; whether another process is at it."""
    settings, dataset = job["settings"], job["dataset"]
    folder = Path(settings["results_dir"])
    run_id, checkpoint = settings["resume"], None
    settings["resume"], automatic = None, run_id == "auto"
    if automatic:
        run_id, status = _twin(folder, study, settings, dataset.fingerprint)
        if status == "COMPLETED":
            print(f"run {run_id}: {settings[study.arm]} is complete already")
            return False
        if status == HELD:
            print(f"run {run_id}: {settings[study.arm]} is {HELD}")
            return True
    if options["--id"] and not re.fullmatch(r"[A-Za-z][\w-]*|[1-9]\d*", options["--id"]):
        raise UserError("--id: it must be a number, or letters, digits, - and _ behind a letter")
    if options["--id"] and not run_id and (folder / options["--id"]).exists():
        raise UserError(f"--id: there is a run {folder / options['--id']} already")
    options = {**options, "--id": run_id or options["--id"]}
    with ExitStack() as stack:
        if run_id:
            try:
                stack.enter_context(sole_user(folder / run_id))
            except Held:  # since it was looked at
                if not automatic:
                    raise
                print(f"run {run_id}: {settings[study.arm]} is {HELD}")
                return True
            checkpoint = _load_checkpoint(folder / run_id, dataset)
        experiment.observers[:] = []
        if not options["--unobserved"]:
            metrics = checkpoint["metrics"] if checkpoint else None
            experiment.observers.append(RunFolder(folder, metrics))

        job["checkpoint"] = checkpoint
        try:
            experiment.run(
                config_updates=nested(settings),
                options=options,
                meta_info={"named_configs": presets},
            )
        except Interrupted as interrupted:
            run = experiment.current_run
            where = f"resume={run._id} results_dir={folder}"
            stored = run.observers and checkpoints.stored(folder / str(run._id))
            again = f"; go on with: with {where}" if stored else ""
            print(f"interrupted at step {interrupted.step}{again}")
            sys.exit(interrupted.exit_code)
        for observer in experiment.observers:
            require_written(observer)
    return False
