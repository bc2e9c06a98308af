"""Checkpoints of a run: written whole, verified when read, the last two kept.

A study's snapshots (state["study"]["snapshots"]: step -> tensor) never change. Each is written
once, to a file of its own that the checkpoints name.
"""

import hashlib
import io
import re
from pathlib import Path

import torch

from forgetting.errors import UserError
from forgetting.files import write_atomically

KEEP = 2
VERSION = 3  # of what a checkpoint holds; another one cannot be gone on with
# The name carries the step and the start of the content's SHA-256.
NAME = re.compile(r"(?:checkpoint|snapshot)-(\d+)-([0-9a-f]{16})\.pt")


_known_whole: set[Path] = set()  # snapshots that this process wrote or compared


def save(folder: Path, step: int, state: dict, keep: int = KEEP) -> None:
    """Write `state` (tensors, numbers, strings, lists, dictionaries) and drop all but `keep`."""
    study = dict(state["study"])
    snapshots = [
        _write(folder, "snapshot", at, snapshot)
        for at, snapshot in study.pop("snapshots", {}).items()
    ]
    whole = {"version": VERSION, **state, "study": study, "snapshots": snapshots}
    latest = _write(folder, "checkpoint", step, whole)
    others = [path for path in stored(folder) if path.name != latest]
    same_step = [path for path in others if step_of(path) == step]
    for old in {*same_step, *[path for path in others if path not in same_step][keep - 1 :]}:
        old.unlink(missing_ok=True)


def _write(folder: Path, kind: str, step: int, content) -> str:
    """The name of the file that holds `content`; a snapshot that is there whole is not written
    again."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:16]
    path = folder / f"{kind}-{step}-{digest}.pt"
    if kind == "checkpoint":
        write_atomically(path, buffer.getbuffer())
    elif path not in _known_whole:
        if not path.exists() or path.read_bytes() != buffer.getbuffer():
            write_atomically(path, buffer.getbuffer())
        _known_whole.add(path)
    return path.name


def stored(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The update after which a checkpoint was written."""
    return int(NAME.fullmatch(path.name)[1])


def load(folder: Path) -> dict | None:
    """The newest checkpoint that is whole, or None. A damaged one is named and passed over.

    Raises UserError for one of another version.
    """
    for path in stored(folder):
        state = _read(path)
        if state is not None and state.get("version") != VERSION:
            raise UserError(
                f"resume: {path} is of another version of this program "
                f"({state.get('version')}, not {VERSION}); go on with that one"
            )
        if state is not None:
            snapshots = {name: _read(folder / name) for name in state.pop("snapshots")}
            damaged = [name for name, snapshot in snapshots.items() if snapshot is None]
            if not damaged:
                steps = {int(NAME.fullmatch(name)[1]): s for name, s in snapshots.items()}
                state["study"] |= {"snapshots": steps} if steps else {}
                return state
        print(f"warning: {path} is damaged; falling back to the checkpoint before it")
    return None


def _read(path: Path):
    """What is in the file, or None where it is not whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest()[:16] != NAME.fullmatch(path.name)[2]:
        return None
    # weights_only: opening someone's results must not be able to run code.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
