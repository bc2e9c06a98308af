"""The one runner: from a command line to stored Sacred runs, for any study.

It reads the command line as Sacred does, checks and resolves every setting, loads the data, and
only then starts a Sacred run; so what is stored is what ran, and a mistake leaves nothing behind.
A study is anything with total_steps, position, info, step(), evaluation_due(), evaluate(),
artifacts(), status(), summary() and state_dict()/load_state_dict(). Nothing here knows which.
"""

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from docopt import DocoptExit, docopt
from sacred import Experiment
from sacred.arg_parser import get_config_updates
from sacred.initialize import create_run

from experiments.run import (
    checkpoints,
    live,
    other_observers,
    output,
    process,
    progress,
    stored_commands,
    twins,
)
from experiments.run.beside import commands, run_beside
from experiments.run.entries import Entry
from experiments.run.exit_codes import TRY_LATER
from experiments.run.identity import identity
from experiments.run.locks import Held, sole_user
from experiments.run.log import Diverged
from experiments.run.loop import require_written, run_to_the_end
from experiments.run.observer import RunFolder, make_results_folder
from experiments.run.other_observers import Beside
from experiments.run.resolve import resolve
from experiments.run.stopping import Interrupted, Stop
from experiments.run.stored_commands import (
    LEFT_OPEN,
    load_checkpoint,
    refuse_other_settings,
    require_run,
)
from experiments.run.study import Study, require_own_code
from forgetting import data
from forgetting.errors import UserError
from forgetting.methods import place_in_users_file
from forgetting.settings import flat, nested, validate, with_defaults

# Incidental, but a run is gone on with as it was where they are not asked for otherwise.
KEPT = {"dataset.root", "dataset.memory_mb", "checkpoint_every", "stream.recording", "tensorboard"}


def main(study: Study, argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a mistake (one line on stderr), 2 unreadable
    arguments, 130 or 143 interrupted, 75 stopped by stop_after or held by another process.
    argv: None, in a command: its own, whose arms may run beside each other; given: all that it asks
    for happens in this process."""
    if argv is None:
        output.command(functools.partial(_exit, study, sys.argv, True))
    _exit(study, list(argv), False)


def _exit(study: Study, argv: list[str], own_process: bool) -> NoReturn:
    try:
        sys.exit(_main(study, argv, own_process))
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
        parts = [place_in_users_file(error), *getattr(error, "__notes__", [])]
        where = "".join(f"{part}: " for part in parts if part)
        print(f"error: {where}{type(error).__name__}: {reason} (-d shows where)", file=sys.stderr)
    sys.exit(1)


def _main(study: Study, argv: list[str], own_process: bool) -> int:
    experiment = study.experiment
    job = {}  # what Sacred's configuration cannot carry: the data, a checkpoint, the clock

    @experiment.main
    def train(_run):
        """Train, evaluate and store one run an arm."""
        return run_to_the_end(_run, study, **job)

    options = _parse(experiment, argv)
    if options is None:
        print(f"Settings, and what each is:\n  {output.typed(argv[0], 'print_config')}\n")
        print(output.example("with", "quick", f"{study.arm}={study.default_arms[-1]}", "seed=1"))
        return 0
    require_own_code(Path(experiment.base_dir, study.name))
    command = options["COMMAND"] or experiment.default_command
    if command not in experiment.commands:
        hint = f"{', '.join(experiment.commands)} are"
        if command in experiment.named_configs or "=" in command:
            hint = f"presets and settings stand behind `with`, as in: with {command}"
        raise UserError(f"{command}: no such command; {hint}")
    updates, presets = _read_updates(study, options)
    settings = _settings(study, updates, presets, options["UPDATE"])
    if command in study.commands:
        explicit = study.explicit(settings, flat(updates), bool(presets))
        return stored_commands.apply(command, study, settings, explicit)
    if command != experiment.default_command:
        experiment.run(command, nested(settings), options=options)
        return 0

    folder = Path(settings["results_dir"])
    if settings["resume"] not in (None, "auto"):
        explicit = study.explicit(settings, flat(updates), bool(presets))
        settings = _settings_to_resume(folder, settings, explicit, study)
    others = other_observers.others(experiment, options, folder)
    if settings["tensorboard"]:
        live.require()
    arms = [settings[study.arm]] if settings[study.arm] else study.default_arms
    any_device = settings["device"] == "auto"
    with progress.said_already():
        settings, dataset = resolve(settings, study.least_classes)
        process.prepare(torch.device(settings["device"]), settings["precision"])
        for arm in arms:  # before the first of them begins
            study.check({**settings, study.arm: arm}, dataset)
        if not options["--unobserved"]:
            make_results_folder(folder)
        print(
            f"preset {settings['preset']} on {dataset.label}, {settings['device']}, "
            f"{settings['precision']}; choose another with: with quick | cpu | paper"
        )
        print(dataset.account())
    if options["--id"] and len(arms) > 1:
        raise UserError(f"--id: it names one run; set {study.arm}, too")
    together = own_process and len(arms) > 1 and not options["--pdb"]
    threads = together and process.threads_beside(settings, study.widest(settings), len(arms))
    if threads:
        del dataset  # each loads its own
        return run_beside(commands(study, argv, options), threads)
    done, held = None, False
    progress.wait_for_turn()
    with Stop(settings["stop_after"]) as stop:
        for arm in arms:
            if not stop.exit_code():
                job.update(settings={**settings, study.arm: arm}, dataset=dataset, stop=stop)
                held |= _run_arm(study, job, options, presets, others, any_device)
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
        print(
            f"error: cannot read these arguments: settings are KEY=VALUE behind `with`, as in: "
            f"with quick seed=1; see {argv[0]} --help",
            file=sys.stderr,
        )
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


def _read_updates(study: Study, options: dict) -> tuple[dict, list[str]]:
    of_arm = [word for word in options["UPDATE"] if word.partition("=")[0].strip() == study.arm]
    arm = get_config_updates(of_arm)[0].get(study.arm)
    for update in options["UPDATE"]:
        key, equals, _ = update.partition("=")
        if equals:
            study.require_known(key.strip(), arm)
        elif key not in study.experiment.named_configs:
            known = ", ".join(study.experiment.named_configs)
            raise UserError(f"{key}: no such preset; there are {known}; a setting is KEY=VALUE")
    updates, presets = get_config_updates(options["UPDATE"])
    if "preset" in updates:
        raise UserError("preset: choose one by its name alone, as in: with cpu")
    return updates, presets


def _settings(study: Study, updates: dict, presets: list, words: Sequence[str] = ()) -> dict:
    """All settings, flat and checked, before anything is looked up."""
    if not presets:
        presets = ["paper" if torch.cuda.is_available() else "quick"]
    arm = flat(updates).get(study.arm)
    table = study.table(arm) if isinstance(arm, str) else study.settings
    validate(flat(updates), table, words)  # before Sacred seeds itself with what may be no seed
    config = create_run(
        study.experiment, "print_config", updates, presets, log_level="CRITICAL"
    ).config
    return validate(flat(config), table)


# ------------------------------------------------------------------ runs that are there already


def known(
    study: Study,
    words: Sequence[str],
    load: Callable = data.load,
    elsewhere: bool = False,
) -> twins.Known:
    """What is stored of the one run that `with WORDS` asks for, as `twins.known` says it."""
    return twins.known(study, _settings_of(study, words), load, elsewhere)


def asked_for(study: Study, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(identity of the one run that `with WORDS` asks for, less its images, which are not looked
    at; the keys of it that are left open)."""
    settings = _settings_of(study, words)
    if settings[study.arm] is None:
        raise UserError(f"{study.arm}: name one for every run")
    files = study.parse(settings[study.arm]).content
    wanted = identity(study, settings, files=files, **study.facts(settings))
    return wanted, [key for key, value in LEFT_OPEN if key in wanted and wanted[key] == value]


def _settings_of(study: Study, words: Sequence[str]) -> dict[str, Any]:
    options = _parse(study.experiment, [study.name, "with", *words])
    return _settings(study, *_read_updates(study, options))


def _settings_to_resume(
    folder: Path, settings: dict, explicit: Mapping[str, Any], study: Study
) -> dict:
    """The settings that run `resume` was started with, refusing any that is now asked otherwise.

    explicit: the settings that were asked for; the others of `settings` are defaults.
    """
    record = require_run(folder, settings["resume"], study)
    if record.status == "COMPLETED":
        raise UserError(f"resume: {folder / settings['resume']} is complete already")
    refuse_other_settings(settings, explicit, record)
    incidental = study.incidental
    kept = KEPT - explicit.keys()
    stored = with_defaults(record.settings, study.settings)
    if settings[study.arm]:  # where its files are now
        stored[study.arm] = settings[study.arm]
    if study.parse(stored[study.arm]).content != record.files:
        raise UserError(
            f"resume: a method's file is not what {record.folder} began with ({record.files}); put "
            f"that back (its text is in info.json), or start a run of its own"
        )
    merged = {**stored, **{key: settings[key] for key in incidental - kept}}
    for fact, content in study.facts(merged).items():
        if record.identity.get(fact, content) != content:
            raise UserError(
                f"resume: {record.folder} began with the {fact} {record.identity[fact]}, and this "
                f"is {content}"
            )
    return merged


# ------------------------------------------------------------------ one run


def _run_arm(study, job, options, presets, others, any_device) -> bool:
    """Bring one arm's run to its end, or exit; whether another process is at it. any_device: one
    that another device has completed is the run."""
    experiment = study.experiment
    settings, dataset = job["settings"], job["dataset"]
    arm = study.parse(settings[study.arm])
    folder = Path(settings["results_dir"])
    run_id, checkpoint = settings["resume"], None
    settings["resume"], automatic = None, run_id == "auto"
    if automatic:
        facts = {"images": dataset.fingerprint, "files": arm.content, **study.facts(settings)}
        wanted = identity(study, settings, **facts)
        record, status = twins.find(folder, wanted, any_device=any_device)
        run_id = record.folder.name if record else None
        if status == "COMPLETED":
            print(f"run {run_id}: {arm.name} is complete already")
            return False
        if status == twins.HELD:
            print(f"run {run_id}: {arm.name} is {status}")
            return True
    if options["--id"] and not re.fullmatch(r"[A-Za-z][\w-]*|[1-9]\d*", options["--id"]):
        raise UserError("--id: it must be a number, or letters, digits, - and _ behind a letter")
    if options["--id"] and not run_id and (folder / options["--id"]).exists():
        raise UserError(f"--id: there is a run {folder / options['--id']} already")
    if options["--id"] and not run_id:
        other_observers.require_free(others, options["--id"])
    options = {**options, "--id": run_id or options["--id"]}
    with ExitStack() as stack:
        if run_id:
            try:
                stack.enter_context(sole_user(folder / run_id))
            except Held:  # since it was looked at
                if not automatic:
                    raise
                print(f"run {run_id}: {arm.name} is {twins.HELD}")
                return True
            checkpoint = load_checkpoint(folder / run_id, dataset)
        observers = []
        if not options["--unobserved"]:
            recorder = RunFolder(folder, checkpoint["metrics"] if checkpoint else None)
            recorder.taken = 0 if options["--id"] else other_observers.largest(others)
            shown = [Entry(live.LiveView(recorder))] if settings["tensorboard"] else []
            observers = [recorder, *(Beside(other, recorder) for other in (*others, *shown))]
        stack.enter_context(other_observers.observed_by(experiment, observers))

        job["checkpoint"] = checkpoint
        try:
            experiment.run(
                config_updates=nested(settings),
                options=options,
                meta_info={"named_configs": presets},
            )
        except Interrupted as interrupted:
            run = experiment.current_run
            again = checkpoints.how_to_go_on(folder / str(run._id)) if run.observers else ""
            if again and others:  # which are not repeated here: they may hold a password
                again = f"; name its other observers again{again}"
            print(f"interrupted at step {interrupted.step}{again}")
            sys.exit(interrupted.exit_code)
        except Exception:
            if observers and not checkpoint and recorder.empty:
                recorder.remove()
            raise
        if observers:
            require_written(recorder)
    return False
