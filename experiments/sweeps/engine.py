"""All runs of a plan brought to their end by Dask, on this machine or on a cluster."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from experiments.run.beside import cores
from experiments.run.exit_codes import TRY_LATER
from experiments.sweeps.plan import ELSEWHERE, Planned, duration
from experiments.sweeps.worker import (
    bring_to_the_end,
    ignore_interrupts,
    on_the_cpu,
    stop_runs,
)
from forgetting.errors import UserError

# Dask gives a task up when four workers died that had it, queued ones too; a run loses little by
# it, and is only given up when that happened as often as this.
GIVEN_UP_AT = 25
WORKER_DIED = 256  # no exit code of a process
# Dask's own upkeep, for tasks of milliseconds, took 14 % of a core for two workers; so 1.4 %.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # A laptop that slept for five minutes would find that all its workers count as dead.
    "distributed.scheduler.worker-ttl": None,
}


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
            devices = gpus(to_do)
            cluster = LocalCluster(
                n_workers=min(workers or devices or cores(), len(to_do)),
                threads_per_worker=1,
                dashboard_address=":0",
                memory_limit=0,  # a run's memory is its own process's
                silence_logs=50,
            )
            client = Client(cluster)
    except Exception as error:
        reason = " ".join(str(error).split())
        if not scheduler:
            raise UserError(f"--workers: Dask cannot start any here: {reason}") from None
        if isinstance(error, (OSError, ValueError)):  # nobody answers; no address
            raise UserError(f"--scheduler: no Dask scheduler at {scheduler}: {reason}") from None
        raise UserError(
            f"--scheduler: the one at {scheduler} does not understand the Dask of this side, "
            f"{dask.__version__} ({reason}); both need the same version"
        ) from None
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if cluster:
            client.run(ignore_interrupts)
        return _wait_for(client, runs, folder, scheduler, devices, name, keep_going)
    except KeyboardInterrupt as stop:
        print("stopping in good order; the same command goes on from there", file=sys.stderr)
        with contextlib.suppress(OSError):  # a scheduler that is gone, too
            client.run(stop_runs, name)
        return 143 if isinstance(stop, _Terminated) else 130
    finally:
        client.close()
        if cluster:
            cluster.close()


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def _terminate(*_) -> None:
    raise _Terminated


def gpus(runs: Sequence[Planned]) -> int:
    """Those of this machine; none for runs that are all of the CPU."""
    import torch

    return 0 if _all_on_the_cpu(runs) else torch.cuda.device_count()


def _all_on_the_cpu(runs: Sequence[Planned]) -> bool:
    return all(on_the_cpu(run.words) for run in runs)


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
        some_on_gpus = any(_gpus(worker) for worker in _workers(client))
        on_gpu = some_on_gpus and not _all_on_the_cpu(to_do)
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
    began, workless, asked = time.monotonic(), False, set()
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
                if scheduler and (here := {worker["id"] for worker in workers}) - asked:
                    _require_project(client, scheduler)
                    asked |= here
                slots = sum(_gpus(w) if on_gpu else w["nthreads"] for w in workers)
                while queue and len(under_way) < slots:
                    start(queue.popleft())
                ended = {under_way.pop(future): _outcome(future) for future in _ended(under_way)}
            except (OSError, CancelledError):
                raise lost from None
            for run, (code, said, seconds) in ended.items():
                died[run] += code == WORKER_DIED
                if code == TRY_LATER or (code == WORKER_DIED and died[run] < GIVEN_UP_AT):
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
            client.run(stop_runs, sweep)
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


# Not a function of this project: who lacks it could not read the question, and would be lost.
CAN_IMPORT = "__import__('experiments.sweeps.worker') and None"


def _require_project(client, scheduler: str) -> None:
    """UserError where the scheduler, or every worker, cannot import this project."""
    answers = list(client.run(eval, CAN_IMPORT, on_error="return").values())
    try:
        client.run_on_scheduler(eval, CAN_IMPORT)
    except ImportError as error:
        who, reason = "it", error
    else:
        # Dask gives the runs of a worker that is lost to the others.
        if not answers or not all(isinstance(answer, ImportError) for answer in answers):
            return
        who, reason = "its workers", answers[0]
    raise UserError(
        f"--scheduler: {scheduler}: {who} cannot import this project ({reason}); start all of the "
        f"cluster in the project's environment"
    )


def _gpus(worker: dict) -> int:
    return int((worker.get("resources") or {}).get("GPU", 0))


def _outcome(future) -> tuple[int, str, float]:
    """Exit code, last words and seconds; raises what says that the scheduler is lost."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        return future.result()
    except KilledWorker:
        return WORKER_DIED, "its worker died again and again", 0.0
    except (CommClosedError, CancelledError):
        raise
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
