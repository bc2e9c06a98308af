"""Checkpoints of a run: written whole, verified when read, the last two kept."""

import hashlib
import io
import re
from pathlib import Path

import torch

from forgetting.errors import UserError
from forgetting.files import write_atomically

KEEP = 2
VERSION = 1  # of what a checkpoint holds; another one cannot be gone on with
# The name carries the step and the start of the content's SHA-256.
NAME = re.compile(r"checkpoint-(\d+)-([0-9a-f]{16})\.pt")


def save(folder: Path, step: int, state: dict, keep: int = KEEP) -> None:
    """Write `state` (tensors, numbers, strings, lists, dictionaries) and drop all but `keep`."""
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    write_atomically(folder / f"checkpoint-{step}-{digest}.pt", content)
    for old in stored(folder)[keep:]:
        old.unlink(missing_ok=True)


def stored(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load(folder: Path) -> dict | None:
    """The newest checkpoint that is whole, or None. A damaged one is named and passed over.

    Raises UserError for one of another version.
    """
    for path in stored(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] == NAME.fullmatch(path.name)[2]:
            # weights_only: opening someone's results must not be able to run code.
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if state.get("version") != VERSION:
                raise UserError(
                    f"resume: {path} is of another version of this program "
                    f"({state.get('version')}, not {VERSION}); go on with that one"
                )
            return state
        print(f"warning: {path} is damaged; falling back to the checkpoint before it")
    return None
