"""The one runner: from a command line to stored Sacred runs, for any study.

It reads the command line as Sacred does, checks and resolves every setting, loads the data, and
only then starts a Sacred run; so what is stored is what ran, and a mistake leaves nothing behind.
A study is anything with total_steps, position, info, step(), evaluation_due(), evaluate(),
artifacts(), status(), summary() and state_dict()/load_state_dict(). Nothing here knows which.
"""

import ctypes
import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docopt import DocoptExit, docopt
from sacred import SETTINGS, Experiment, Ingredient
from sacred.arg_parser import get_config_updates
from sacred.initialize import create_run
from sacred.utils import SacredInterrupt
from tqdm import tqdm

from experiments import checkpoints
from experiments.observer import RunFolder
from experiments.settings import Rule, check_key, flat, nested, seconds, validate
from forgetting import data
from forgetting.errors import UserError
from forgetting.files import write_atomically

__all__ = [
    "PROJECT",
    "Experiment",
    "Ingredient",
    "Study",
    "default_path",
    "has_code_version",
    "main",
]

PROJECT = Path(__file__).resolve().parents[1]
# How and where a run proceeds; a run may be taken up again with other values of these.
NOT_THE_RUN = ("resume", "stop_after", "checkpoint_every", "results_dir", "dataset.root")
STOPPED_BY_CLOCK = 75  # the exit code of sysexits.h for "try again later"

# File descriptors would be captured from the progress bar, too; and the code version is git's.
SETTINGS.CAPTURE_MODE = "sys"
SETTINGS.DISCOVER_SOURCES = "none"


@dataclass(frozen=True)
class Study:
    """What the runner needs to know of a study.

    arm: the setting that names a run's arm; unset, each of `default_arms` becomes a run.
    check(settings, dataset): raises UserError where settings and data do not fit each other.
    build(settings, dataset, device, autocast): the study, ready to step.
    least_classes: 1 where images without labels (one class folder) will do.
    commands: name -> function(study, folder of the run) -> a line to print, for a stored run.
    """

    arm: str
    default_arms: Sequence[str]
    rules: Mapping[str, Rule]
    check: Callable[[Mapping[str, Any], data.Dataset], None]
    build: Callable[[Mapping[str, Any], data.Dataset, torch.device, Callable], Any]
    least_classes: int = 2
    commands: Mapping[str, Callable[[Any, Path], str]] = field(default_factory=dict)


class Interrupted(SacredInterrupt):
    """The run stopped where it can be taken up again."""

    STATUS = "INTERRUPTED"

    def __init__(self, step: int, exit_code: int):
        super().__init__(f"interrupted at step {step}")
        self.step, self.exit_code = step, exit_code


class Diverged(Exception):
    """A loss is no number any more."""


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
    arguments, 130 or 143 interrupted, 75 stopped by stop_after."""
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
        return _train(_run, study, **job)

    options = _parse(experiment, argv)
    if options is None:
        return 0
    command = options["COMMAND"] or experiment.default_command
    if command not in experiment.commands:
        raise UserError(f"{command}: no such command; {', '.join(experiment.commands)} are")
    updates, presets = _read_updates(experiment, study, options)
    settings = _settings(experiment, study, updates, presets)
    if command in study.commands:
        print(_apply_command(study, settings, study.commands[command]))
        return 0
    if command != experiment.default_command:
        experiment.run(command, nested(settings), options=options)
        return 0

    folder = Path(settings["results_dir"])
    if settings["resume"] not in (None, "auto"):
        explicit = flat(updates) if not presets else settings
        settings = _settings_to_resume(folder, settings, explicit, study)
    settings, dataset = _resolve(settings, study.least_classes)
    study.check(settings, dataset)
    if not options["--unobserved"]:
        _make_results_folder(folder)
    print(
        f"preset {settings['preset']} on {dataset.label}, {settings['device']}, "
        f"{settings['precision']}; choose another with: with quick | cpu | paper"
    )
    arms = [settings[study.arm]] if settings[study.arm] else study.default_arms
    done = None
    with _Stop(settings["stop_after"]) as stop:
        for arm in arms:
            if not stop.exit_code():
                job.update(settings={**settings, study.arm: arm}, dataset=dataset, stop=stop)
                _run_arm(experiment, study, job, options, presets)
                done = arm
        # An end asked for during the last step of an arm lets that arm finish.
        return 0 if done == arms[-1] else stop.exit_code()


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
    config = create_run(
        experiment, experiment.default_command, updates, presets, log_level="CRITICAL"
    ).config
    # Sacred takes a preset's docstring for a setting.
    return validate({k: v for k, v in flat(config).items() if k != "__doc__"}, study.rules)


def _resolve(settings: dict, least_classes: int) -> tuple[dict, data.Dataset]:
    """Replace every `auto` by what it means here, and load the data."""
    settings = dict(settings)
    if settings["device"] == "auto":
        settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise UserError("device: there is no CUDA device here; use device=cpu or device=auto")
    if settings["precision"] == "auto":
        settings["precision"] = "bf16" if _bf16_is_native(settings["device"]) else "fp32"
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
    dataset = data.load(
        settings["dataset.name"],
        settings["dataset.root"],
        settings["dataset.size"],
        settings["dataset.label"],
        least_classes,
    )
    settings["dataset.size"] = dataset.train_images.shape[-1]
    settings["dataset.label"] = dataset.label
    return settings, dataset.to(settings["device"])


def _bf16_is_native(device: str) -> bool:
    """Whether bf16 has matrix units of its own.

    AVX-512's bf16 dot product alone does not count: there bf16 convolutions of these nets measured
    0.5 to 0.7 times the speed of fp32.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(has_amx and has_amx())


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
    run_id = settings["resume"]
    status, stored = _stored(folder, run_id, study)
    if status == "COMPLETED":
        raise UserError(f"resume: {folder / run_id} is complete already")
    left_open = ("auto", None)  # resolved when the run began
    differing = [
        f"{key} (stored {stored.get(key)!r}, asked {settings[key]!r})"
        for key in explicit
        if key not in NOT_THE_RUN
        and settings[key] != stored.get(key)
        and settings[key] not in left_open
    ]
    if differing:
        raise UserError(
            f"resume: {folder / run_id} was started with other settings: {', '.join(differing)}"
        )
    kept = {"dataset.root", "checkpoint_every"} - explicit.keys()
    return {**stored, **{key: settings[key] for key in NOT_THE_RUN if key not in kept}}


def _twin(folder: Path, study: Study, settings: dict) -> tuple[str | None, str | None]:
    """(id, status) of a run of the same settings: a complete one, else one that can be gone on
    with and nobody is working on, else (None, None)."""
    wanted = {k: v for k, v in settings.items() if k not in NOT_THE_RUN}
    unfinished = None, None
    for run in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            status, stored = _stored(folder, run.name, study)
        except UserError:
            continue
        if {k: v for k, v in stored.items() if k not in NOT_THE_RUN} != wanted:
            continue
        if status == "COMPLETED":
            return run.name, status
        if checkpoints.stored(run):
            try:
                with _sole_user(run):
                    unfinished = run.name, status
            except UserError:
                continue
    return unfinished


@contextmanager
def _sole_user(run: Path):
    """Hold a run's folder; UserError if another process does. Ends with the process, whatever."""
    with open(run / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"resume: another process is working on {run}") from None
        yield


def _make_results_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"results_dir: cannot write to {folder}; choose a folder that can be")


def _apply_command(study, settings, command) -> str:
    """Rebuild the study of run `resume` from its last checkpoint and apply a command to it."""
    folder, run_id = Path(settings["results_dir"]), settings["resume"]
    if run_id in (None, "auto"):
        raise UserError("resume: name the run, as in: with resume=3")
    _, stored = _stored(folder, run_id, study)
    stored, dataset = _resolve({**stored, "device": settings["device"]}, study.least_classes)
    checkpoint = _load_checkpoint(folder / run_id, dataset)
    device = torch.device(stored["device"])
    learner = study.build(
        stored, dataset, device, partial(torch.autocast, device.type, enabled=False)
    )
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


def _run_arm(experiment, study, job, options, presets) -> None:
    settings, dataset = job["settings"], job["dataset"]
    folder = Path(settings["results_dir"])
    run_id, checkpoint = settings["resume"], None
    settings["resume"] = None
    if run_id == "auto":
        run_id, status = _twin(folder, study, settings)
        if status == "COMPLETED":
            print(f"run {run_id}: {settings[study.arm]} is complete already")
            return
    if options["--id"] and not re.fullmatch(r"[\w-]+", options["--id"]):
        raise UserError("--id: it must be letters, digits, - and _")
    if options["--id"] and not run_id and (folder / options["--id"]).exists():
        raise UserError(f"--id: there is a run {folder / options['--id']} already")
    options = {**options, "--id": run_id or options["--id"]}
    with _sole_user(folder / run_id) if run_id else nullcontext():
        if run_id:
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
            again = f"; go on with: with {where}" if run.observers else ""
            print(f"interrupted at step {interrupted.step}{again}")
            sys.exit(interrupted.exit_code)
        for observer in experiment.observers:
            _require_written(observer)


def _require_written(observer: RunFolder) -> None:
    """UserError if a file of the run could not be written, which Sacred would pass over."""
    if observer.failure:
        raise UserError(
            f"results_dir: cannot write to {observer.dir}: {observer.failure.strerror}; make room "
            f"and go on with resume={Path(observer.dir).name}"
        )


def _train(run, study, settings, dataset, checkpoint, stop) -> dict[str, float]:
    """One run from its start, or its checkpoint, to its summary."""
    recorders = [observer for observer in run.observers if isinstance(observer, RunFolder)]
    recorder = recorders[0] if recorders else None
    folder = Path(recorder.dir) if recorder else None
    # A run that is taken up again is held already.
    with _sole_user(folder) if folder and not checkpoint else nullcontext():
        return _loop(run, recorder, study, settings, dataset, checkpoint, stop)


def _loop(run, recorder, study, settings, dataset, checkpoint, stop) -> dict[str, float]:
    _keep_freed_memory()
    folder = Path(recorder.dir) if recorder else None
    device = torch.device(settings["device"])
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=settings["precision"] == "bf16"
    )
    learner = study.build(settings, dataset, device, autocast)
    log = _Log(run)
    seconds_spent = {"training": 0.0, "evaluation": 0.0, "checkpoints": 0.0}
    if checkpoint:
        # Sums of floats depend on how many threads share them, and so does every bit after.
        torch.set_num_threads(checkpoint["threads"])
        learner.load_state_dict(checkpoint["study"])
        log.restore(checkpoint["metrics"], checkpoint["loss_sums"])
        seconds_spent = checkpoint["seconds"]
        print(f"resumed at step {learner.position}")
    run.info.update(_about(dataset, device), **learner.info, seconds=seconds_spent)

    @contextmanager
    def timed(what):
        start = time.perf_counter()
        yield
        seconds_spent[what] += time.perf_counter() - start

    def save(keep=checkpoints.KEEP):
        if folder is None:
            return
        with timed("checkpoints"):
            state = {
                "study": learner.state_dict(),
                **log.state(),
                "fingerprint": dataset.fingerprint,
                "threads": torch.get_num_threads(),
                "seconds": dict(seconds_spent),
            }
            try:
                checkpoints.save(folder, learner.position, state, keep)
            except OSError as error:
                recorder.failure = error
                _require_written(recorder)

    def evaluate() -> dict[str, float]:
        log.look()  # a loss that is no number, before a probe stumbles over it
        with timed("evaluation"):
            values = learner.evaluate()
        log.evaluation(values, learner.position)
        for name, content in learner.artifacts().items() if folder else ():
            write_atomically(folder / name, content)
            run.add_artifact(folder / name, name)
        return values

    name = settings[study.arm]
    title = f"run {run._id}: {name}" if run._id else name
    print(f"{title}, seed {settings['seed']}, {learner.total_steps} iterations")
    if not checkpoint:
        evaluate()
        save()
    # stderr itself, not Sacred's capture of it; and silent where nobody watches.
    bar = tqdm(
        total=learner.total_steps,
        initial=learner.position,
        desc=title,
        file=sys.__stderr__,
        disable=not sys.__stderr__.isatty(),
        dynamic_ncols=True,
    )
    with bar:
        while learner.position < learner.total_steps:
            with timed("training"):
                log.losses(learner.step(), learner.position)
            if learner.evaluation_due():
                bar.set_postfix_str(learner.status(evaluate()), refresh=False)
            bar.update()
            if recorder:
                _require_written(recorder)
            last = learner.position == learner.total_steps
            if stop.exit_code() and not last:
                save()
                raise Interrupted(learner.position, stop.exit_code())
            if last or learner.position % settings["checkpoint_every"] == 0:
                save(keep=1 if last else checkpoints.KEEP)
    if device.type == "cuda":
        run.info["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    result = learner.summary(
        {k: (np.array(v["steps"]), np.array(v["values"])) for k, v in log.metrics.items()}
    )
    where = f", stored in {os.path.relpath(folder)}" if folder else ""
    print(f"{title} done in {sum(seconds_spent.values()):.0f} s{where}")
    return result


class _Log:
    """What a run logged so far, on its way to Sacred and into the checkpoints."""

    def __init__(self, run):
        self.run = run
        self.metrics: dict[str, dict[str, list]] = {}
        self.loss_sums: dict[str, tuple[int, float]] = {}
        self.unseen: list[tuple[str, int, torch.Tensor]] = []

    def restore(self, metrics: dict, loss_sums: dict) -> None:
        self.metrics = {
            name: {key: list(column) for key, column in columns.items()}
            for name, columns in metrics.items()
        }
        self.loss_sums = dict(loss_sums)

    def losses(self, losses: Mapping[str, torch.Tensor], step: int) -> None:
        """Take the losses of the update that led to `step`; Diverged when one is no number.

        On a GPU looked at some steps later, so as not to wait for it at every step.
        """
        self.unseen += [(name, step, value) for name, value in losses.items()]
        if self.unseen[0][2].device.type == "cpu" or len(self.unseen) >= 100:
            self.look()

    def look(self) -> None:
        """Diverged if one of the losses taken since the last look is no number."""
        if not self.unseen:
            return
        values = torch.stack([value.double() for _, _, value in self.unseen]).tolist()
        for (name, step, _), value in zip(self.unseen, values, strict=True):
            _require_finite(name, value, step)
            n, total = self.loss_sums.get(name, (0, 0.0))
            self.loss_sums[name] = (n + 1, total + value)
        self.unseen = []

    def evaluation(self, values: Mapping[str, float], step: int) -> None:
        """Log `values` and the mean of each loss since the last evaluation; Diverged on a NaN."""
        self.look()
        means = {name: total / n for name, (n, total) in self.loss_sums.items()}
        self.loss_sums = {}
        for name, value in {**values, **means}.items():
            _require_finite(name, value, step)
            self.run.log_scalar(name, value, step)
            columns = self.metrics.setdefault(name, {"steps": [], "values": [], "timestamps": []})
            columns["steps"].append(step)
            columns["values"].append(value)
            columns["timestamps"].append(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()))

    def state(self) -> dict:
        """Metrics and sums of losses, for a checkpoint."""
        self.look()
        return {"metrics": self.metrics, "loss_sums": dict(self.loss_sums)}


def _require_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(f"{name} is {value} at step {step}; a lower lr may help")


class _Stop:
    """Whether to stop after the step at hand: SIGINT or SIGTERM came (a second one ends at once),
    or `stop_after` is over, counted from here."""

    def __init__(self, stop_after: str | None):
        self.end = time.monotonic() + seconds(stop_after) if stop_after else math.inf
        self.by_signal = 0

    def exit_code(self) -> int:
        """0: go on."""
        return self.by_signal or (STOPPED_BY_CLOCK if time.monotonic() >= self.end else 0)

    def __enter__(self):
        self.before = {s: signal.signal(s, self._caught) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _caught(self, number, _frame):
        if self.by_signal:
            raise KeyboardInterrupt
        self.by_signal = 128 + number


def _about(dataset: data.Dataset, device: torch.device) -> dict:
    """Facts about the data and the machine, for Sacred's info."""
    return {
        "data": {
            "classes": list(dataset.classes),
            "train_images": len(dataset.train_labels),
            "test_images": len(dataset.test_labels),
            "fingerprint": dataset.fingerprint,
        },
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "peak_device_bytes": None,
    }


def _keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of giving them back to the kernel.

    Else every activation map is mapped and zeroed anew at each step: 6,800 page faults a step and
    1.2 times the time, measured on the CPU at width 32.
    """
    trim_threshold, mmap_threshold = -1, -3
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
    except (OSError, AttributeError):
        pass  # another C library: only slower
