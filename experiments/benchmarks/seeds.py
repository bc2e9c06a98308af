"""As many runs as can be brought to their end by a deadline, beside each other on one machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.run.exit_codes import STOPPED, TRY_LATER

AT_ONCE = 6  # two seeds of three arms
START_UP = 8  # seconds
CAN_BE_GONE_ON_WITH = (TRY_LATER, *STOPPED)  # exit codes


@dataclass
class Run:
    """One of them. seen: (time, updates done) at each checkpoint, while as many run beside it."""

    name: str
    words: Sequence[str]
    folder: Path
    process: subprocess.Popen | None = None
    began_at: int = 0
    paused: bool = False
    ended: bool = False
    complete: bool = False
    seen: list[tuple[float, int]] = field(default_factory=list)

    def start(self) -> None:
        words = [*self.words, f"results_dir={self.folder}", "resume=auto"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, *words], env=environment)
        self.began_at, self.paused, self.seen = self.done(), False, []

    def pause(self) -> None:
        """It writes a checkpoint and ends; the same command goes on from there."""
        self.process.send_signal(signal.SIGTERM)
        self.paused = True

    def look(self) -> None:
        code = self.process.poll()
        if code is None:
            done = self.done()
            if done > (self.seen[-1][1] if self.seen else self.began_at):
                self.seen.append((time.monotonic(), done))
            return
        self.process = None
        self.complete = code == 0
        self.ended = self.complete or not (self.paused and code in CAN_BE_GONE_ON_WITH)
        if self.ended and not self.complete:
            print(f"{self.name}: failed with exit code {code}", flush=True)

    def done(self) -> int:
        """Updates that a checkpoint holds."""
        found = self.folder.glob("*/checkpoint-*.pt")
        return max((int(path.name.split("-")[1]) for path in found), default=0)

    def rate(self) -> float | None:
        """Updates a second; None while that is not known, or it is about to pause."""
        if len(self.seen) < 3 or self.paused:
            return None
        (t1, n1), (t2, n2) = self.seen[0], self.seen[-1]
        return (n2 - n1) / (t2 - t1)


def complete_runs(
    commands: Mapping[str, Sequence[str]], folder: Path, updates: int, end: float
) -> list[Path]:
    """The folders of results of the runs that were complete at the time `end`, by the clock of
    time.monotonic().

    commands: name -> words of Sacred's command line, the most wanted first. Several run at once,
    for narrow or small nets leave a GPU idle in between. As soon as their speed shows that not all
    of them would be through, the least wanted pause and leave it to the others; when one is
    through, the next begins where there is time for it.
    """
    runs = [Run(name, words, folder / name) for name, words in commands.items()]
    together = None  # updates a second of all that run
    while time.monotonic() < end:
        for run in running(runs):
            run.look()
        active = running(runs)
        rates = [run.rate() for run in active]
        if active and None not in rates:
            together = sum(rates)
            keep = max(1, through_in_time([updates - run.done() for run in active], together, end))
            for run in active[keep:]:
                print(f"{run.name}: paused at {run.done()} of {updates} updates", flush=True)
                run.pause()
            for run in active if active[keep:] else ():
                run.seen = []  # from here on it is faster
        waiting = [run for run in runs if not run.process and not run.ended]
        for run in waiting[: AT_ONCE - len(active)]:
            left = [updates - one.done() for one in (*active, run)]
            if together is None or through_in_time(left, together, end - START_UP) == len(left):
                run.start()
                active.append(run)
        failed = [run for run in runs if run.ended and not run.complete]
        if len(failed) >= AT_ONCE and not any(run.complete for run in runs):
            break
        if not active:
            break  # all are through, or there is no time for another
        time.sleep(0.2)
    for run in running(runs):
        print(f"{run.name}: not through, {run.done()} of {updates} updates", flush=True)
        run.process.kill()
        run.process.wait()
    return [run.folder for run in runs if run.complete]


def running(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.process]


def through_in_time(left: Sequence[int], rate: float, end: float) -> int:
    """How many runs, from the first, can share `rate` updates a second and be through at `end`;
    left: updates that each has to do."""
    keep = 0
    for n in range(1, len(left) + 1):
        if max(left[:n]) * n / rate < end - time.monotonic():
            keep = n
    return keep
