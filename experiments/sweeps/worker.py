"""One run of a sweep, on a worker. PyTorch is not imported: what runs is a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from experiments import PROJECT
from experiments.run.beside import end_with_the_parent
from experiments.run.exit_codes import STOPPED, TRY_LATER


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
    own = 0 if on_the_cpu(words) else int(worker.state.total_resources.get("GPU", 0))
    env["PYTHONUTF8"] = "1"  # a locale may lack letters of the words
    command = [sys.executable, str(PROJECT / "experiments" / f"{study}.py"), "with"]
    command += [word.encode(errors="surrogateescape") for word in words]
    command += [os.fsencode(f"results_dir={folder}"), "resume=auto"]
    with contextlib.ExitStack() as stack:
        if devices:
            env["CUDA_VISIBLE_DEVICES"] = _visible(devices)[int(worker.name) % devices]
        elif own > 1:
            env["CUDA_VISIBLE_DEVICES"] = stack.enter_context(_free_one(_visible(own)))
        elif not own:
            env["OMP_NUM_THREADS"] = "1"
        code, said = _run(command, env, sweep)
    if code == TRY_LATER:  # by a worker that is just ending, or by another sweep: not at once again
        time.sleep(5)
    if code in STOPPED and sweep not in _stopped:  # as a cluster stops what a node runs
        raise Reschedule
    return code, said, time.monotonic() - start


def on_the_cpu(words: Sequence[str]) -> bool:
    """Whether a run's KEY=VALUE words ask for the CPU, so that it takes no GPU; the last holds."""
    devices = [word.partition("=")[2] for word in words if word.split("=")[0].strip() == "device"]
    return bool(devices) and devices[-1].strip("'\" ") == "cpu"


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


def _run(command: Sequence[str | bytes], env: dict[str, str], sweep: str) -> tuple[int, str]:
    if sweep in _stopped:
        return STOPPED[1], ""
    run = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        preexec_fn=end_with_the_parent,
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


def ignore_interrupts() -> None:
    """In a worker of this machine: a terminal's Ctrl-C is for the sweep."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def stop_runs(sweep: str) -> None:
    """In a worker: let the sweep's runs write a checkpoint and end, and start no more of them."""
    _stopped.add(sweep)
    for run, whose in list(_running.items()):
        if whose == sweep:
            run.terminate()
    deadline = time.monotonic() + 30
    while sweep in _running.values() and time.monotonic() < deadline:
        time.sleep(0.1)
