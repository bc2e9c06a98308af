"""A function of each of many things, in processes that begin with all that this one has read."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from experiments.run.beside import end_with_the_parent
from forgetting.errors import UserError

_function: Callable[[Any], Any] | None = None  # which a process is forked with


def each(function: Callable[[Any], Any], things: Sequence[Any], processes: int) -> Iterator[Any]:
    """function(thing) of each, in order; what it returns is pickled, what it needs is not.

    processes: at most so many at once; here where it is one, and where there is no safe fork.
    """
    global _function
    if min(processes, len(things)) < 2 or sys.platform != "linux":
        yield from map(function, things)
        return
    _function = function
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(processes, len(things)), context, _begin)
    try:
        yield from pool.map(_call, things)
    except BrokenProcessPool:
        raise UserError("a process was killed while it drew; is there too little memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    end_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends them


def _call(thing: Any) -> Any:
    return _function(thing)
