"""Bring every run of a plan to its end, on this machine or on a cluster (by Dask).

python experiments/sweep.py figure3 --preset cpu [KEY=VALUE ...]

A plan is a file of settings to combine (experiments/plan.py). What is complete in the results
folder is left as it is, what is unfinished is gone on with: the same command again always means
"bring me to the end".

PyTorch is imported where it is used: workers, which import this file, have no use for it.
"""

import argparse
import contextlib
import ctypes
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from experiments.plan import (
    ELSEWHERE,
    PLANS,
    Planned,
    duration,
    key_of,
    look_up,
    read_plan,
    show,
    summary,
    word_of,
)
from forgetting.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
PRESETS = ("quick", "cpu", "paper")
# Exit codes of a run that was asked to stop and can be gone on with; early on, the signal itself.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
HELD = 75  # that of one that another process is working on
# Dask gives a task up when four workers died that had it, queued ones too; a run loses little by
# it, and is only given up when that happened as often as this.
GIVEN_UP_AT = 25
WORKER_DIED = 256  # no exit code of a process
# Dask's own upkeep, for tasks of milliseconds, took 14 % of a core for two workers; so 1.4 %.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}


# ------------------------------------------------------------------ one run, on a worker


def bring_to_the_end(
    study: str, words: Sequence[str], folder: str, devices: int, sweep: str
) -> tuple[int, str, float]:
    """(exit code, the last line it said, seconds) of the real command, in a process of its own.

    It ends with the worker: a run whose worker was killed must not hold its folder. On a CPU it has
    one thread, so that two runs on two cores do not fight. devices: the GPUs here, which local
    workers share by their numbers; 0: the worker says how many are its own. sweep: whose run it is.
    """
    from distributed import Reschedule, get_worker

    worker, env, start = get_worker(), dict(os.environ), time.monotonic()
    own = 0 if _on_the_cpu(words) else int(worker.state.total_resources.get("GPU", 0))
    command = [sys.executable, str(PROJECT / "experiments" / f"{study}.py"), "with", *words]
    command += [f"results_dir={folder}", "resume=auto"]
    with contextlib.ExitStack() as stack:
        if devices:
            env["CUDA_VISIBLE_DEVICES"] = _visible(devices)[int(worker.name) % devices]
        elif own > 1:
            env["CUDA_VISIBLE_DEVICES"] = stack.enter_context(_free_one(_visible(own)))
        elif not own:
            env["OMP_NUM_THREADS"] = "1"
        code, said = _run(command, env, sweep)
    if code == HELD:  # by a worker that is just ending, or by another sweep: not at once again
        time.sleep(5)
    if code in STOPPED and sweep not in _stopped:  # as a cluster stops what a node runs
        raise Reschedule
    return code, said, time.monotonic() - start


def _visible(devices: int) -> list[str]:
    """The names of the first `devices` GPUs that this process may use."""
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))).split(",")


@contextlib.contextmanager
def _free_one(devices: Sequence[str]) -> Iterator[str]:
    """One of a worker's GPUs that none of its other runs has."""
    with _choosing:
        device = next((d for d in devices if d not in _taken), devices[0])
        _taken.append(device)
    try:
        yield device
    finally:
        _taken.remove(device)


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
# And the GPUs that they have, where it has several.
_taken: list[str] = []
_choosing = threading.Lock()


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
    import dask
    from distributed import Client, LocalCluster

    logging.disable(logging.CRITICAL)  # what matters of Dask's many lines is said here
    dask.config.set(QUIET)

    to_do = [run for run in runs if run.to_do]
    devices, cluster, name = 0, None, f"{os.getpid()} {time.time_ns()}"
    try:
        if scheduler:
            client = Client(scheduler, timeout=10)
        else:
            devices = _devices(to_do)
            cluster = LocalCluster(
                n_workers=min(workers or devices or _cores(), len(to_do)),
                threads_per_worker=1,
                dashboard_address=":0",
                memory_limit=0,  # a run's memory is its own process's
                silence_logs=50,
            )
            client = Client(cluster)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--scheduler: no Dask scheduler at {scheduler}: {error}") from None
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if cluster:
            client.run(_ignore_interrupts)
        return _wait_for(client, runs, folder, scheduler, devices, name, keep_going)
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


def _devices(runs: Sequence[Planned]) -> int:
    """The GPUs of this machine; none for runs that are all of the CPU."""
    import torch

    return 0 if all(_on_the_cpu(run.words) for run in runs) else torch.cuda.device_count()


def _on_the_cpu(words: Sequence[str]) -> bool:
    asked = [word.partition("=")[2].strip("'\" ") for word in words if key_of(word) == "device"]
    return asked[-1:] == ["cpu"]


def _cores() -> int:
    """Those that this process may use, by affinity and control group."""
    from dask.system import CPU_COUNT

    return CPU_COUNT


def _wait_for(
    client,
    runs: Sequence[Planned],
    folder: Path,
    scheduler: str | None,
    devices: int,
    sweep: str,
    keep_going: bool,
) -> int:
    from distributed import CancelledError

    lost = UserError(
        f"the scheduler at {scheduler or 'this machine'} is lost; the same command goes on from "
        f"what is stored"
    )
    try:
        if not _workers(client):
            print("waiting for a worker")
            client.wait_for_workers(1)
        to_do = [run for run in runs if run.to_do]
        on_cpu = all(_on_the_cpu(run.words) for run in to_do)
        on_gpu = not on_cpu and any(_gpus(worker) for worker in _workers(client))
    except (OSError, CancelledError):
        raise lost from None
    # In the plan's order, but those that are held elsewhere last: by then their process may have
    # ended, or died. Dask gets no more of them than run at once: it moves tasks that queue on its
    # workers, and those it moves overtake the others.
    queue = deque(sorted(to_do, key=lambda run: run.state == ELSEWHERE))
    under_way = {}

    def start(run: Planned) -> None:
        future = client.submit(
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
        )
        under_way[future] = run

    failed: list[tuple[Planned, str]] = []
    took: dict[Planned, float] = {}
    died: Counter[Planned] = Counter()
    began, workless = time.monotonic(), False
    bar = tqdm(
        total=len(runs),
        initial=len(runs) - len(to_do),
        desc="runs",
        bar_format="{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}",
        disable=None,
        dynamic_ncols=True,
    )
    with bar:
        while (under_way or queue) and (keep_going or not failed):
            try:
                workers = _workers(client)  # they come and go
                slots = sum(_gpus(w) if on_gpu else w["nthreads"] for w in workers)
                while queue and len(under_way) < slots:
                    start(queue.popleft())
                ended = {under_way.pop(future): _outcome(future) for future in _ended(under_way)}
            except (OSError, CancelledError):
                raise lost from None
            for run, (code, said, seconds) in ended.items():
                died[run] += code == WORKER_DIED
                if code == HELD or (code == WORKER_DIED and died[run] < GIVEN_UP_AT):
                    queue.append(run)
                    continue
                took[run] = 0.0 if code else seconds
                bar.update()
                if code:
                    failed.append((run, said))
                if bar.disable:
                    end = f"failed: {said}" if code else "complete"
                    print(f"{len(runs) - len(to_do) + len(took)} of {len(runs)}: {run.name}: {end}")
            if not slots and not workless:
                bar.write("no worker is left; waiting for one")
            workless = not slots
            running = sum(w["metrics"].get("task_counts", {}).get("executing", 0) for w in workers)
            waiting = [*under_way.values(), *queue]
            left = _seconds_left(to_do, waiting, took, slots, time.monotonic() - began)
            bar.set_postfix_str(f"{running} running, {len(failed)} failed, {duration(left)} left")
            sys.stdout.flush()
    if under_way:
        with contextlib.suppress(OSError):  # a scheduler that is gone
            client.run(_stop_runs, sweep)
    print(f"{len(took) - len(failed)} runs brought to their end in {folder}")
    if not_done := len(to_do) - len(took):
        print(f"{not_done} not: stopped by --no-keep-going; the same command goes on with them")
    for run, said in failed:
        print(f"failed: {run.name}: {said}", file=sys.stderr)
    return 1 if failed else 0


def _ended(under_way: Collection) -> set:
    """Those that ended, after a second at most."""
    from distributed import wait

    if not under_way:  # no worker
        time.sleep(1)
        return set()
    with contextlib.suppress(TimeoutError):
        return wait(list(under_way), timeout=1, return_when="FIRST_COMPLETED").done
    return set()


def _workers(client) -> list[dict]:
    info = client.scheduler_info(n_workers=-1)
    # Dask's client refreshes it without workers every few seconds, also while this asks.
    while len(info["workers"]) < info["n_workers"]:
        info = client.scheduler_info(n_workers=-1)
    return list(info["workers"].values())


def _gpus(worker: dict) -> int:
    return int((worker.get("resources") or {}).get("GPU", 0))


def _outcome(future) -> tuple[int, str, float]:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return WORKER_DIED, "its worker died again and again", 0.0
    except Exception as error:  # of Dask itself
        return 1, f"{type(error).__name__}: {' '.join(str(error).split())}", 0.0


def _seconds_left(
    to_do: Sequence[Planned],
    waiting: Collection[Planned],
    took: Mapping[Planned, float],
    slots: int,
    elapsed: float,
) -> float | None:
    """How long the runs will take at `slots` at once; None where nothing tells yet.

    took: seconds of those that ended, 0 of those that failed. A run of unknown length is taken to
    be as long as the others were.
    """
    known = [s for s in took.values() if s]
    usual = sum(known) / len(known) if known else None
    lengths = {run: took.get(run, run.seconds_left or usual) for run in to_do}
    if None in lengths.values() or not slots:
        return None
    longest = max((lengths[run] for run in waiting), default=0.0)
    return max(sum(lengths.values()) / slots, longest, elapsed) - elapsed


# ------------------------------------------------------------------ the command


def main() -> None:
    named = ", ".join(sorted(path.stem for path in PLANS.glob("*.toml")))
    parser = argparse.ArgumentParser(description="Bring every run of a plan to its end.")
    parser.add_argument("plan", metavar="PLAN", help=f"{named}, or a file like theirs")
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="for every run; optional")
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="quick, if not given")
    folder = PROJECT / "results/runs"
    parser.add_argument("--results-dir", default=folder, metavar="DIR", help="unset: results/runs")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="tcp://... of a Dask cluster")
    text = "how many at once; unset: as many as cores or GPUs. A cluster's are its own"
    parser.add_argument("--workers", type=int, metavar="N", help=text)
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
        if options.scheduler is not None and not options.scheduler.strip():
            raise UserError("--scheduler: it must be an address, as in tcp://host:8786")
        study, all_words = read_plan(options.plan)
        varied = {key_of(word) for words in all_words for word in words}
        fixed = []
        for word in options.settings:
            key, (_, equals, value) = key_of(word), word.partition("=")
            if not equals:
                hint = f"; a preset is chosen by --preset {word}" if word in PRESETS else ""
                raise UserError(f"{word}: a setting is KEY=VALUE{hint}")
            if key in varied:
                raise UserError(f"{key}: the plan sets it; change it in a copy of the plan")
            here = ("dataset.root", "results_dir", "resume", "stop_after", "preset")
            fixed.append(word_of(key, value) if key in here else word)
        folder = Path(options.results_dir).absolute()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--results-dir: {folder} is no folder")
        all_words = [(options.preset, *words, *fixed) for words in all_words]
        runs = look_up(study, all_words, folder, elsewhere=bool(options.scheduler))
        if options.dry_run:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in: | head
            here = 1 if options.scheduler else _devices(runs) or _cores()
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
