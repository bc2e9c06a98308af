"""How far a run is: a bar on the terminal, or, of an arm that runs beside others, told to the
command that started it (experiments/run/beside.py), which has the terminal."""

import contextlib
import io
import json
import os
import signal
import sys
import time

from tqdm import tqdm

# In the environment of an arm's process: the file descriptor to tell, and of how many it is one.
TOLD = "FORGETTING_BESIDE"
# By which its command asks it a second time to end. Not by what it was asked first: a cluster sends
# that to every process, and the command passes it on besides.
AT_ONCE = signal.SIGUSR1
EVERY = 0.1  # seconds between what is told


def bar(title: str, done: int, total: int, position: int = 0):
    """A run's bar, as tqdm has it. On stderr itself, not Sacred's capture of it, and silent where
    nobody watches. position: of several, from the top."""
    if TOLD in os.environ:
        return _Told(title, done, total)
    return tqdm(
        desc=title,
        initial=done,
        total=total,
        position=position,
        file=sys.__stderr__,
        disable=not sys.__stderr__.isatty(),
        dynamic_ncols=True,
    )


def at_once() -> int:
    """How many runs share this machine's cores and memory with this one, itself among them."""
    return int(os.environ[TOLD].split()[1]) if TOLD in os.environ else 1


def said_already():
    """Within it nothing is printed in an arm's process: its command has said the same."""
    return (
        contextlib.redirect_stdout(io.StringIO())
        if TOLD in os.environ
        else contextlib.nullcontext()
    )


def wait_for_turn() -> None:
    """In an arm's process, until the arms before it have their folders: ids are in their order."""
    if TOLD in os.environ:
        sys.stdin.read()


def has_begun(title: str) -> None:
    """That the run has its folder."""
    _tell(title)


class _Told:
    """As much of tqdm's bar as a run needs."""

    def __init__(self, title: str, done: int, total: int):
        self.title, self.done, self.total = title, done, total
        self.status, self.next = "", 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _tell(self.title, self.done, self.total, self.status)

    def update(self) -> None:
        self.done += 1
        if time.monotonic() >= self.next:
            _tell(self.title, self.done, self.total, self.status)
            self.next = time.monotonic() + EVERY

    def set_postfix_str(self, status: str, refresh: bool = True) -> None:
        self.status = status


def _tell(*what) -> None:
    if TOLD in os.environ:
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(int(os.environ[TOLD].split()[0]), json.dumps(what).encode() + b"\n")
