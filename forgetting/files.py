"""Files that are either whole or not there, and tables as files."""

import csv
import fcntl
import io
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

A_DAY = 24 * 60 * 60  # seconds
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-[0-9a-f]{16}\.tmp")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` so that `path` holds either its former content or all of the new one."""
    with temporary_beside(path) as file:
        file.write(content)
        publish(file, path)


@contextmanager
def temporary_beside(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write (and to read by its name) in the folder of `path`; removed at the end, unless
    `publish` renamed it.

    Its name is no other process's, on any machine. It is locked while its writer lives.
    """
    path = Path(path)
    while True:
        name = f".{path.name.lstrip('.')}.{_machine()}-{secrets.token_hex(8)}.tmp"
        # As the umask has it: others may have to read it.
        with open(path.with_name(name), "x+b") as file:
            with suppress(OSError):  # no locks here
                fcntl.flock(file, fcntl.LOCK_EX)
            if not os.path.exists(file.name):
                continue  # it was taken for a leftover before it was locked
            try:
                yield file
            finally:
                with suppress(OSError):
                    os.unlink(file.name)
            return


def publish(file: BinaryIO, path: str | Path) -> None:
    """Flush a file of `temporary_beside` to the disk and rename it over `path`."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, path)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed processes left of `temporary_beside` in `folder`; return what is left: the
    files that a process may be writing.

    A file's writer on this machine holds its lock. Of another machine's, or where there are no
    locks, a writer is taken for dead when it has not written for a day.
    """
    left = []
    for path in Path(folder).iterdir():
        match = TEMPORARY.fullmatch(path.name)
        if match and not _removed(path, here=match[1] == _machine() != UNKNOWN):
            left.append(path)
    return left


def _removed(path: Path, here: bool) -> bool:
    """Whether no process writes `path` any more, and it is gone. here: its writer was on this
    machine."""
    with suppress(OSError):
        try:
            with open(path, "r+b") as file:  # over NFS, a lock wants a file to write
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if here:
                    path.unlink()
                    return True
        except BlockingIOError:
            return False
        except OSError:
            pass  # not this user's, or no locks here
        if time.time() - path.stat().st_mtime > A_DAY:
            path.unlink()
            return True
    return not os.path.lexists(path)


UNKNOWN = "0" * 8


def _machine() -> str:
    """This machine since it was started: within it, all containers see each other's locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")[:8]
    except OSError:
        return UNKNOWN


def table(rows: Sequence[dict]) -> bytes:
    """A CSV file of rows that have the same columns."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()
