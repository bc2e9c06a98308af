"""The arms of one command beside each other: a process each, of the same command with the arm
named. What they say is passed on, their bars are drawn here, and a signal is for all of them."""

import contextlib
import ctypes
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from experiments import PROJECT
from experiments.run import progress
from experiments.run.exit_codes import STOPPED, TRY_LATER

if TYPE_CHECKING:  # which imports PyTorch; this module is a sweep's worker's, too
    from experiments.run.study import Study

ENDED = (*STOPPED, -progress.AT_ONCE)  # exit codes of what was asked to end


def run_beside(commands: Mapping[str, Sequence[str]], threads: int) -> int:
    """Run a command for each arm, all at once; the exit code: 1 where one failed, else as a run's.

    commands: arm -> what Python is given, in the order of the ids that the runs are to have;
    threads: of each.
    """
    signals: list[int] = []
    arms: list[_Arm] = []

    def caught(number, _frame):
        signals.append(number)
        for arm in arms:
            arm.stop(at_once=len(signals) > 1)

    before = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for position, (name, command) in enumerate(commands.items()):
            arms.append(_Arm(name, command, threads, len(commands), position))
            if signals:  # while it was being started
                arms[-1].stop(at_once=len(signals) > 1)
        arms[0].its_turn()
        _listen(arms)
        return _exit_code([arm.end() for arm in arms], signals)
    finally:
        for arm in arms:
            arm.process.kill()  # only where something failed here are there any left
        for number, handler in before.items():
            signal.signal(number, handler)


def commands(study: "Study", argv: Sequence[str], options: Mapping) -> dict[str, list[str]]:
    """Arm -> what Python is given for it alone; options: as Sacred reads them off argv."""
    script = str(Path(study.experiment.base_dir, f"{study.name}.py"))
    begun = [script, *argv[1:], *([] if options["with"] else ["with"])]
    return {arm: [*begun, f"{study.arm}={arm}"] for arm in study.default_arms}


class _Arm:
    """One arm's process. What it writes is taken a line at a time."""

    def __init__(self, name: str, command: Sequence[str], threads: int, of: int, position: int):
        self.name, self.position, self.bar = name, position, None
        self.begun = False
        told, tell = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=_environment(threads) | {progress.TOLD: f"{tell} {of}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[tell],
            preexec_fn=end_with_the_parent,
            process_group=0,  # a terminal's Ctrl-C is for the command, which passes it on
        )
        os.close(tell)
        streams = {self.process.stdout: self._said, self.process.stderr: self._complained}
        streams[open(told, "rb", buffering=0)] = self._told  # noqa: SIM115
        self.streams: dict = {stream: _Lines(take) for stream, take in streams.items()}

    def its_turn(self) -> None:
        """Let it begin its run."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def stop(self, at_once: bool) -> None:
        """Or else in good order."""
        self.process.send_signal(progress.AT_ONCE if at_once else signal.SIGTERM)
        self.its_turn()

    def take(self, stream) -> bool:
        """Pass on what it wrote; whether there may be more."""
        content = os.read(stream.fileno(), 1 << 16)
        self.streams[stream].add(content)
        return bool(content)

    def end(self) -> int:
        """Its exit code."""
        code = self.process.wait()
        if self.bar is not None:
            self.bar.close()
        if code < 0 and code not in ENDED:
            _print(f"error: {self.name}: killed by signal {-code}", sys.stderr)
        return code

    def _said(self, line: str) -> None:
        _print(line, sys.stdout)

    def _complained(self, line: str) -> None:
        if line.startswith("error: "):
            line = f"error: {self.name}: {line.removeprefix('error: ')}"
        _print(line, sys.stderr)

    def _told(self, line: str) -> None:
        self.begun = True
        title, *how_far = json.loads(line)
        if not how_far:
            return
        done, total, status = how_far
        if self.bar is None:
            self.bar = progress.bar(title, done, total, self.position)
            self.bar.leave = False  # when all have ended, their last lines say it
        self.bar.set_postfix_str(status, refresh=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.refresh()


class _Lines:
    """Bytes as they come, taken a line at a time."""

    def __init__(self, take: Callable[[str], None]):
        self.take, self.rest = take, b""

    def add(self, content: bytes) -> None:
        """content: b"" at the end."""
        *lines, self.rest = (self.rest + content).split(b"\n")
        if not content and self.rest:
            lines.append(self.rest)
        for line in lines:
            self.take(line.decode(errors="replace"))


def _print(line: str, stream) -> None:
    """Above the bars, where there are some."""
    tqdm.write(line, file=stream)
    stream.flush()


def _listen(arms: Sequence[_Arm]) -> None:
    """Until all have ended. Each begins when the one before it has begun, or has ended."""
    with selectors.DefaultSelector() as ready:
        for arm in arms:
            for stream in arm.streams:
                ready.register(stream, selectors.EVENT_READ, arm)
        while ready.get_map():
            for key, _ in ready.select():
                if not key.data.take(key.fileobj):
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
            for arm, following in itertools.pairwise(arms):
                if arm.begun or all(stream.closed for stream in arm.streams):
                    following.its_turn()


def _exit_code(codes: Sequence[int], signals: Sequence[int]) -> int:
    if any(code not in (0, TRY_LATER, *ENDED) for code in codes):
        return 1
    if stopped := [code for code in codes if code in ENDED]:
        if len(signals) > 1:  # the end at once, whose code is Ctrl-C's
            return 128 + signal.SIGINT
        by = 128 + signals[0] if signals else stopped[0]
        return by if by > 0 else 128 - by
    return max(codes)


def _environment(threads: int) -> dict[str, str]:
    path = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
    }


def cores() -> int:
    """Those that this process may use, by affinity and control group."""
    from dask.system import CPU_COUNT

    return CPU_COUNT


def end_with_the_parent() -> None:
    """For a process that begins: it is killed when its parent ends, however that comes."""
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):  # another system: it may outlive it
        ctypes.CDLL("libc.so.6").prctl(set_parent_death_signal, signal.SIGKILL)
