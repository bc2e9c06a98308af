"""Checkpoints of a run: written whole, verified when read, the last two kept.

What of a study's state never changes any more, it may give as parts: state["study"]["parts"], a
dictionary from a name to its content. Each part is written once, to a file of its own that the
checkpoints name. Of a run's metrics a checkpoint holds state["logged"], how many values of each
there are. The values are in the run's folder before it, and cut to so many when it is read.
"""

import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import torch

from experiments.run import metrics_file
from experiments.run.output import typed
from forgetting.errors import UserError
from forgetting.files import write_atomically
from forgetting.settings import word

KEEP = 2
VERSION = 7  # of what a checkpoint holds; another one cannot be gone on with
# A file's name carries the start of its content's SHA-256, a checkpoint's its step before that.
NAME = re.compile(r"checkpoint-(\d+)-[0-9a-f]{16}\.pt")
DIGEST = re.compile(r".+-([0-9a-f]{16})\.pt")

# Parts that this process wrote or compared, by folder and name, and their files' names: they are
# not serialised again at each checkpoint. Of one run at a time.
_known_whole: dict[tuple[Path, str], tuple[Any, str]] = {}


def save(folder: Path, step: int, state: dict, keep: int = KEEP) -> None:
    """Write `state` (tensors, numbers, strings, lists, dictionaries) and drop all but `keep`."""
    study = dict(state["study"])
    parts = {name: _write_once(folder, name, part) for name, part in study.pop("parts", {}).items()}
    whole = {"version": VERSION, **state, "study": study, "parts": parts}
    latest = _write(folder, f"checkpoint-{step}", whole)
    others = [path for path in stored(folder) if path.name != latest]
    same_step = [path for path in others if step_of(path) == step]
    for old in {*same_step, *[path for path in others if path not in same_step][keep - 1 :]}:
        old.unlink(missing_ok=True)


def _write(folder: Path, name: str, content) -> str:
    """The name of the file that holds `content`; one that is there whole is not written again."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:16]
    path = folder / f"{name}-{digest}.pt"
    if not path.exists() or path.read_bytes() != buffer.getbuffer():
        write_atomically(path, buffer.getbuffer())
    return path.name


def _write_once(folder: Path, name: str, part) -> str:
    if any(known != folder for known, _ in _known_whole):
        _known_whole.clear()
    content, file = _known_whole.get((folder, name), (None, None))
    if content is not part:
        file = _write(folder, name, part)
        _known_whole[folder, name] = part, file
    return file


def stored(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def how_to_go_on(run: Path) -> str:
    """The hint by which command `run` is gone on with, that of this process's script; "" where it
    cannot be."""
    words = ["with", f"resume={run.name}", word("results_dir", str(run.parent))]
    return f"; go on with: {typed(sys.argv[0], *words)}" if stored(run) else ""


def step_of(path: Path) -> int:
    """The update after which a checkpoint was written."""
    return int(NAME.fullmatch(path.name)[1])


def load(folder: Path) -> dict | None:
    """The newest checkpoint that is whole, with the metrics that it counts as state["metrics"], or
    None. A damaged one is named and passed over.

    Raises UserError for one of another version.
    """
    for path in stored(folder):
        state, damage = _read(path), "is damaged"
        if state is not None and state.get("version") != VERSION:
            raise UserError(
                f"resume: {path} is of another version of this program "
                f"({state.get('version')}, not {VERSION}); go on with that one"
            )
        if state is not None:
            parts = {name: _read(folder / file) for name, file in state.pop("parts").items()}
            state["metrics"] = metrics_file.read_first(folder, state.pop("logged", {}))
            if state["metrics"] is None:
                damage = "counts more metrics than can be read beside it"
            elif all(part is not None for part in parts.values()):
                state["study"]["parts"] = parts
                return state
        print(f"warning: {path} {damage}; falling back to the checkpoint before it")
    return None


def _read(path: Path):
    """What is in the file, or None where it is not whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest()[:16] != DIGEST.fullmatch(path.name)[1]:
        return None
    # weights_only: opening someone's results must not be able to run code.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
