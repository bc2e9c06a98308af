"""Zips of runs: each run in one is a zipfile.Path, to be read as if it were a folder."""

import functools
import zipfile
import zlib
from pathlib import Path

Folder = Path | zipfile.Path
SUFFIX = ".zip"
# Beside OSError and ValueError, what reading a file may raise: the zip is damaged, or encrypted.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


class Unreadable(ValueError):
    """A folder or zip holds no run of this program, or a damaged one; its text says why."""


def runs_in(path: Path) -> tuple[zipfile.Path, ...]:
    """Of all that may be runs in a zip: what has a run.json. Raises Unreadable.

    The zip stays open until it is another one: to open it takes longer than to read a run.
    """
    try:
        about = path.stat()
        found = _runs_in(path, about.st_mtime_ns, about.st_size)
    except (OSError, ValueError, *DAMAGED) as error:
        raise Unreadable(f"it is no whole zip: {reason(error)}") from None
    if not found:
        raise Unreadable("it is a zip of something else: it holds no NAME/run.json")
    return found


@functools.lru_cache(maxsize=64)
def _runs_in(path: Path, changed: int, size: int) -> tuple[zipfile.Path, ...]:
    root = zipfile.Path(zipfile.ZipFile(path))
    parts = (name.partition("/") for name in root.root.namelist())
    return tuple(root / folder for folder, _, file in parts if folder and file == "run.json")


def files_of(folder: Folder) -> list[str]:
    """The names of what lies in a run's folder."""
    if isinstance(folder, Path):
        return [path.name for path in folder.iterdir()]
    # Its own iterdir makes a path of each file of the whole zip.
    names = (n[len(folder.at) :] for n in folder.root.namelist() if n.startswith(folder.at))
    return [name for name in names if name and "/" not in name]


def reason(error: Exception) -> str:
    """Why something cannot be read."""
    missing = "No such file or directory" if isinstance(error, FileNotFoundError) else ""
    return getattr(error, "strerror", None) or missing or str(error) or type(error).__name__
