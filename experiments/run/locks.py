"""One process at a time on a run."""

import fcntl
from contextlib import ExitStack, contextmanager
from pathlib import Path

from forgetting.errors import UserError


class Held(UserError):
    """Another process is working on a run."""


@contextmanager
def sole_user(run: Path, wait: bool = False):
    """Hold a run's folder, which ends with the process, whatever. Raises Held if another process
    does (or waits for it), UserError where a lock cannot be had at all."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(open(run / ".lock", "wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Held(f"resume: another process is working on {run}") from None
        except OSError as error:
            raise UserError(f"results_dir: {run} cannot be locked: {error.strerror}") from None
        yield
