"""When to stop, by a signal or by the clock, and what it is called."""

import math
import signal
import time
from contextlib import contextmanager

from sacred.utils import SacredInterrupt

from experiments.run import progress
from experiments.run.exit_codes import TRY_LATER
from forgetting.settings import seconds


class Interrupted(SacredInterrupt):
    """The run stopped where it can be taken up again."""

    STATUS = "INTERRUPTED"

    def __init__(self, step: int, exit_code: int):
        super().__init__(f"interrupted at step {step}")
        self.step, self.exit_code = step, exit_code


class StoppedNow(KeyboardInterrupt):
    """A signal came where the work at hand is long and can be done again; no library catches it."""


class Stop:
    """Whether to stop after the step at hand: SIGINT or SIGTERM came (a second one ends at once; in
    an arm's process beside others `progress.AT_ONCE` does), or `stop_after` is over, counted from
    here."""

    interrupts = False  # whether a signal ends what is being done

    def __init__(self, stop_after: str | None):
        self.end = time.monotonic() + seconds(stop_after) if stop_after else math.inf
        self.by_signal = 0

    def exit_code(self) -> int:
        """0: go on."""
        return self.by_signal or (TRY_LATER if time.monotonic() >= self.end else 0)

    def __enter__(self):
        self.before = {s: signal.signal(s, self._caught) for s in (signal.SIGINT, signal.SIGTERM)}
        if progress.at_once() > 1:
            self.before[progress.AT_ONCE] = signal.signal(progress.AT_ONCE, self._end)
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self):
        """Raise StoppedNow in the middle of this, when a signal comes or has come. `stop_after`
        waits: a slice shorter than this would never get beyond it."""
        if self.by_signal:
            raise StoppedNow
        self.interrupts = True
        try:
            yield
        finally:
            self.interrupts = False

    def _caught(self, number, _frame):
        if self.by_signal and progress.at_once() > 1:
            return
        if self.by_signal:
            self._end()
        self.by_signal = 128 + number
        if self.interrupts:
            raise StoppedNow

    def _end(self, *_):
        raise KeyboardInterrupt
