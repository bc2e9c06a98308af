"""Bring every run of a plan to its end, on this machine or on a cluster (by Dask).

python experiments/sweep.py figure3 --preset cpu [KEY=VALUE ...]

A plan is a file of settings to combine (experiments/plans/*.toml, or your own). What is complete in
the results folder is left as it is, what is unfinished is gone on with: the same command again
always means "bring me to the end".

PyTorch is imported where it is used: workers, which import this file, have no use for it.
"""

import argparse
import ast
import contextlib
import ctypes
import functools
import importlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from forgetting.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
PLANS = Path(__file__).with_name("plans")
STUDIES = ("sequential_tasks", "gan_probe")
STOPPED = (130, 143)  # exit codes of a run that was asked to stop, and can be gone on with
HELD = 75  # that of one that another process is working on
ELSEWHERE = "running elsewhere"


@dataclass(frozen=True)
class Planned:
    """One run of a plan: what follows `with` on its command line, and what is stored of it."""

    study: str
    words: tuple[str, ...]
    name: str  # of the words, those that tell it from the plan's other runs
    id: str | None  # of a stored run with these settings
    state: str  # to do, unfinished, running elsewhere or complete
    seconds_left: float | None  # as runs of its kind took; None: there is none to tell

    @property
    def to_do(self) -> bool:
        return self.state != "complete"


# ------------------------------------------------------------------ the plan


def read_plan(name: str) -> tuple[str, list[tuple[str, ...]]]:
    """The study of a plan, and KEY=VALUE words for each of its runs, the last key varying fastest.

    name: of a plan of the project, or a path. Raises UserError with one line.
    """
    from experiments.settings import flat

    named = {path.stem: path for path in sorted(PLANS.glob("*.toml"))}
    path = named.get(name, Path(name))
    try:
        plan = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"PLAN: there is no plan {name} ({error.strerror}); there are {', '.join(named)}, or "
            f"name a file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"PLAN: {path} is no TOML file: {error}") from None
    unknown = plan.keys() - {"study", "grid", "settings"}
    if unknown:
        raise UserError(
            f"PLAN: {path} has {sorted(unknown)[0]!r}; it holds study, [grid], [settings]"
        )
    if plan.get("study") not in STUDIES:
        raise UserError(f"PLAN: study in {path} must be {' or '.join(STUDIES)}")
    axes = []
    for part in ("grid", "settings"):
        if not isinstance(plan.get(part, {}), dict):
            raise UserError(f"PLAN: [{part}] of {path} must hold settings")
    for key, values in flat(plan.get("grid", {})).items():
        if not isinstance(values, list) or not values:
            raise UserError(f"PLAN: {key} in [grid] of {path} must be a list of values")
        axes.append([_words(v if isinstance(v, dict) else {key: v}) for v in values])
    fixed = _words(plan.get("settings", {}))
    return plan["study"], [
        tuple(word for part in (fixed, *cell) for word in part) for cell in itertools.product(*axes)
    ]


def _words(settings: dict) -> tuple[str, ...]:
    from experiments.settings import flat

    return tuple(_word(key, value) for key, value in flat(settings).items())


def _word(key: str, value) -> str:
    """KEY=VALUE as the command line reads it; where a path leads must not depend on the folder a
    worker was started in. Raises UserError for what a sweep sets itself."""
    if key.strip() in ("results_dir", "resume", "stop_after"):
        raise UserError(f"{key}: a sweep sets it itself")
    if key == "dataset.root":
        value = os.path.abspath(os.path.expanduser(value))
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError):
            ast.literal_eval(value)  # a text that would be read as a number, say
            value = repr(value)
    return f"{key}={value}"


def look_up(
    study: str, all_words: Sequence[tuple[str, ...]], folder: Path, elsewhere: bool
) -> list[Planned]:
    """The planned runs, each with what is stored of it in `folder`. elsewhere: they will not be on
    this machine. Raises UserError for settings that will not do, before anything starts."""
    from experiments import runner
    from forgetting import data

    module = importlib.import_module(f"experiments.{study}")
    load = functools.cache(data.load)  # once for all runs
    known, asked = [], []
    chosen: tuple[str, ...] = ()
    for words in all_words:
        named = any(word.startswith("dataset.name=") for word in words)
        words = words if named else (*words, *chosen)
        here = [*words, f"results_dir={folder}"]
        run = runner.look_up(module.ex, module.STUDY, here, load, elsewhere)
        if run.data and not named:  # auto is looked up once, and is the same for every worker
            chosen = (f"dataset.name={run.data}",)
            words = (*words, *chosen)
        if (run.kind, run.seed) in {(other.kind, other.seed) for other in known}:
            continue  # the same run in other words
        asked.append(words)
        known.append(run)
    # A run takes as long as complete ones of the same settings but the seed, else of the same arm.
    took: dict[tuple, list[float]] = {}
    for run in known:
        if run.seconds is not None:
            for kind in (run.kind, run.arm):
                took.setdefault(kind, []).append(run.seconds)
    states = {None: "to do", "COMPLETED": "complete", runner.HELD: ELSEWHERE}
    shared = _shared(asked)
    planned = []
    for words, run in zip(asked, known, strict=True):
        alike = took.get(run.kind) or took.get(run.arm)
        left = None
        if run.status == "COMPLETED":
            left = 0.0
        elif alike:
            left = sum(alike) / len(alike) * (1 - run.done)
        name = " ".join(word for word in words if word not in shared)
        state = states.get(run.status, "unfinished")
        planned.append(Planned(study, words, name, run.id, state, left))
    return planned


# ------------------------------------------------------------------ one run, on a worker


def bring_to_the_end(
    study: str, words: Sequence[str], folder: str, devices: int, sweep: str
) -> tuple[int, str]:
    """(exit code, the last line it said) of the real command, in a process of its own.

    It ends with the worker: a run whose worker was killed must not hold its folder. On a CPU it has
    one thread, so that two runs on two cores do not fight. devices: the GPUs here, which local
    workers share by their numbers; 0: what the worker sees is its own. sweep: whose run it is.
    """
    from distributed import Reschedule, get_worker

    worker, env = get_worker(), dict(os.environ)
    if devices:
        visible = env.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))
        env["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(worker.name) % devices]
    elif "GPU" not in worker.state.total_resources:
        env["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(PROJECT / "experiments" / f"{study}.py"), "with", *words]
    code, said = _run([*command, f"results_dir={folder}", "resume=auto"], env, sweep)
    pause = 5
    while code == HELD:  # by a worker that is just ending, or by another sweep
        time.sleep(pause)
        pause = min(2 * pause, 60)
        code, said = _run([*command, f"results_dir={folder}", "resume=auto"], env, sweep)
    if code in STOPPED and sweep not in _stopped:  # as a cluster stops what a node runs
        raise Reschedule
    return code, said


def _run(command: Sequence[str], env: dict[str, str], sweep: str) -> tuple[int, str]:
    if sweep in _stopped:
        return STOPPED[1], ""
    run = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_end_with_the_parent,
        process_group=0,  # a terminal's Ctrl-C is for the sweep, which then asks its runs to stop
    )
    _running[run] = sweep
    if sweep in _stopped:  # since it was looked up above
        run.terminate()
    out, errors = run.communicate()
    del _running[run]
    if run.returncode < 0:
        return run.returncode, f"killed by signal {-run.returncode}"
    said = (errors.strip() or out.strip()).splitlines()
    return run.returncode, said[-1] if said else ""


# In a worker's process: its runs, each with its sweep; and the sweeps that were stopped.
_running: dict[subprocess.Popen, str] = {}
_stopped: set[str] = set()


def _ignore_interrupts() -> None:
    """In a worker of this machine: a terminal's Ctrl-C is for the sweep."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop_runs(sweep: str) -> None:
    """In a worker: let the sweep's runs write a checkpoint and end, and start no more of them."""
    _stopped.add(sweep)
    for run, whose in list(_running.items()):
        if whose == sweep:
            run.terminate()
    deadline = time.monotonic() + 30
    while sweep in _running.values() and time.monotonic() < deadline:
        time.sleep(0.1)


def _end_with_the_parent() -> None:
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):  # another system: its runs may outlive it
        ctypes.CDLL("libc.so.6").prctl(set_parent_death_signal, signal.SIGKILL)


# ------------------------------------------------------------------ all of them


def sweep(
    runs: Sequence[Planned],
    folder: Path,
    scheduler: str | None,
    workers: int | None,
    keep_going: bool = True,
) -> int:
    """Run what is not complete; the exit code: 0, 1 where a run failed, 130 or 143 stopped.

    keep_going: past runs that fail; else the first that fails stops the others in good order.
    """
    from distributed import Client, LocalCluster

    logging.disable(logging.CRITICAL)  # what matters of Dask's many lines is said here

    # Those that are held elsewhere last: by then their process may have ended, or died.
    to_do = sorted((run for run in runs if run.to_do), key=lambda run: run.state == ELSEWHERE)
    devices, cluster, name = 0, None, f"{os.getpid()} {time.time_ns()}"
    try:
        if scheduler:
            client = Client(scheduler, timeout=10)
        else:
            devices, cores = _devices(), os.cpu_count() or 1
            n = min(workers or devices or cores, len(to_do))
            cluster = LocalCluster(
                n_workers=n,
                threads_per_worker=1,
                dashboard_address=":0",
                memory_limit=0,  # a run's memory is its own process's
                silence_logs=50,
            )
            client = Client(cluster)
    except (OSError, ValueError) as error:
        raise UserError(f"--scheduler: no Dask scheduler at {scheduler}: {error}") from None
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if cluster:
            client.run(_ignore_interrupts)
        return _wait_for(client, to_do, folder, scheduler, devices, name, keep_going)
    except KeyboardInterrupt as stop:
        print("stopping in good order; the same command goes on from there", file=sys.stderr)
        with contextlib.suppress(OSError):  # a scheduler that is gone, too
            client.run(_stop_runs, name)
        return 143 if isinstance(stop, _Terminated) else 130
    finally:
        client.close()
        if cluster:
            cluster.close()


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def _terminate(*_) -> None:
    raise _Terminated


def _devices() -> int:
    import torch

    return torch.cuda.device_count()


def _wait_for(
    client,
    runs: Sequence[Planned],
    folder: Path,
    scheduler: str | None,
    devices: int,
    sweep: str,
    keep_going: bool,
) -> int:
    from distributed import CancelledError, wait

    lost = UserError(
        f"--scheduler: the scheduler at {scheduler or 'this machine'} is lost; the same command "
        f"goes on from what is stored"
    )
    try:
        if not _workers(client):
            print("waiting for a worker")
            client.wait_for_workers(1)
        on_gpu = any(_gpus(worker) for worker in _workers(client))
    except (OSError, CancelledError):
        raise lost from None
    futures = {
        client.submit(
            bring_to_the_end,
            run.study,
            run.words,
            str(folder),
            devices,
            sweep,
            key=f"{run.study} {' '.join(run.words)} {time.time_ns()}",
            resources={"GPU": 1} if on_gpu else None,
            pure=False,
            retries=0,
            priority=-i,  # in the plan's order
        ): run
        for i, run in enumerate(runs)
    }
    failed: list[tuple[Planned, str]] = []
    waiting, start = set(futures), time.monotonic()
    bar = tqdm(total=len(runs), desc="runs", unit="run", disable=None, dynamic_ncols=True)
    with bar:
        while waiting and (keep_going or not failed):
            try:
                done = wait(waiting, timeout=1, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                done = set()
            except CancelledError:
                raise lost from None
            for future in done:
                waiting.discard(future)
                code, said = _outcome(future)
                bar.update()
                if code:
                    failed.append((futures[future], said))
            finished = len(runs) - len(waiting)
            left = (time.monotonic() - start) / finished * len(waiting) if finished else None
            try:  # workers come and go
                at_once = sum(_gpus(w) if on_gpu else w["nthreads"] for w in _workers(client))
            except (OSError, CancelledError):
                raise lost from None
            bar.set_postfix_str(
                f"{min(at_once, len(waiting))} running, {len(failed)} failed, {_time(left)} left",
                refresh=True,
            )
    if waiting:
        with contextlib.suppress(OSError):  # a scheduler that is gone
            client.run(_stop_runs, sweep)
    print(f"{len(runs) - len(waiting) - len(failed)} runs brought to their end in {folder}")
    if waiting:
        print(f"{len(waiting)} not: stopped by --no-keep-going; the same command goes on with them")
    for run, said in failed:
        print(f"failed: {run.name}: {said}", file=sys.stderr)
    return 1 if failed else 0


def _workers(client) -> list[dict]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _gpus(worker: dict) -> int:
    return int((worker.get("resources") or {}).get("GPU", 0))


def _outcome(future) -> tuple[int, str]:
    try:
        return future.result()
    except Exception as error:  # of Dask itself: a worker that died again and again
        return 1, f"{type(error).__name__}: {' '.join(str(error).split())}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


# ------------------------------------------------------------------ the command


def show(runs: Sequence[Planned], workers: int) -> None:
    """A line a run with what tells it from the others, then the counts and an estimate."""
    shared = _shared([run.words for run in runs])
    print(runs[0].study + (f", all with: {' '.join(shared)}" if shared else ""))
    for run in runs:
        print(f"{run.state:<17} {run.id or '-':<5} {run.name}")
    print(summary(runs))
    lengths = [run.seconds_left for run in runs if run.to_do]
    known = [length for length in lengths if length is not None]
    if lengths:
        text = "unknown: no complete run of the kind yet"
        if known:
            text = _time(max(max(known), sum(known) / workers))
        unknown = len(lengths) - len(known)
        more = f", and {unknown} runs of unknown length" if known and unknown else ""
        print(f"time left with {workers} at once: {text}{more}")


def _shared(all_words: Sequence[tuple[str, ...]]) -> list[str]:
    """The words that all of several runs have; none where there is one."""
    several = len(all_words) > 1
    return [w for w in all_words[0] if several and all(w in words for words in all_words)]


def summary(runs: Sequence[Planned]) -> str:
    counts = Counter(run.state for run in runs)
    kinds = ["complete", "unfinished", "to do"]
    kinds += [ELSEWHERE] if counts[ELSEWHERE] else []
    return f"{len(runs)} runs: " + ", ".join(f"{counts[kind]} {kind}" for kind in kinds)


def main() -> None:
    named = ", ".join(sorted(path.stem for path in PLANS.glob("*.toml")))
    parser = argparse.ArgumentParser(description="Bring every run of a plan to its end.")
    parser.add_argument("plan", metavar="PLAN", help=f"{named}, or a file like theirs")
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="for every run")
    parser.add_argument("--preset", choices=("quick", "cpu", "paper"), default="quick")
    parser.add_argument("--results-dir", default=PROJECT / "results/runs", metavar="DIR")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="tcp://... of a Dask cluster")
    parser.add_argument("--workers", type=int, metavar="N", help="at once; unset: cores or GPUs")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and start none")
    parser.add_argument(
        "--keep-going",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="past a run that fails (the default); else stop the others, which can be gone on with",
    )
    options = parser.parse_intermixed_args()
    try:
        if options.workers is not None and options.workers < 1:
            raise UserError("--workers: it must be 1 or more")
        study, all_words = read_plan(options.plan)
        varied = {word.partition("=")[0] for words in all_words for word in words}
        fixed = []
        for word in options.settings:
            key, equals, value = word.partition("=")
            if not equals:
                raise UserError(f"{word}: a setting is KEY=VALUE")
            if key in varied:
                raise UserError(f"{key}: the plan sets it; change it in a copy of the plan")
            paths = ("dataset.root", "results_dir", "resume", "stop_after")
            fixed.append(_word(key, value) if key.strip() in paths else word)
        folder = Path(options.results_dir).absolute()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--results-dir: {folder} is no folder")
        all_words = [(options.preset, *words, *fixed) for words in all_words]
        runs = look_up(study, all_words, folder, elsewhere=bool(options.scheduler))
        if options.dry_run:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in: | head
            here = 1 if options.scheduler else _devices() or os.cpu_count() or 1
            show(runs, options.workers or here)
            return
        print(summary(runs))
        if not any(run.to_do for run in runs):
            return
        sys.exit(sweep(runs, folder, options.scheduler, options.workers, options.keep_going))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    # As a module that workers can import: what they are sent is a name.
    importlib.import_module("experiments.sweep").main()
