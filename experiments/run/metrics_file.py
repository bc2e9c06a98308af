"""A run's metrics: in metrics.json as Sacred has it, and while the run goes on in metrics.jsonl.

To write all of them anew each time would cost the more the longer a run is. So what was logged
since metrics.json was written stands in lines of metrics.jsonl: {name: {"from": how many values
came before, "steps": [...], "values": [...], "timestamps": [...]}}.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from experiments.run.packed import Folder
from forgetting.files import write_atomically

COLUMNS = ("steps", "values", "timestamps")


def append(folder: str | Path, new: Mapping[str, Mapping]) -> None:
    """Add a line, as above, and see it onto the disk. Raises OSError."""
    with open(Path(folder, "metrics.jsonl"), "ab") as file:
        file.write(json.dumps(new, sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Folder) -> dict[str, dict[str, list]]:
    """All metrics so far, as metrics.json is to hold them. Raises OSError where there are none,
    ValueError, KeyError, TypeError, AttributeError or one of `packed.DAMAGED` where a file is
    damaged."""
    whole, log = folder / "metrics.json", folder / "metrics.jsonl"
    lines = log.read_bytes().splitlines() if log.exists() else []
    metrics = json.loads(whole.read_bytes()) if whole.exists() or not lines else {}
    for i, line in enumerate(lines):
        try:
            added = json.loads(line)
        except ValueError:
            if i == len(lines) - 1:
                break  # the run was killed, or the machine, while it wrote it
            raise
        for name, new in added.items():
            stored = metrics.setdefault(name, {column: [] for column in COLUMNS})
            for column in COLUMNS:
                if new["from"] > len(stored[column]):
                    raise ValueError(f"{name}: {new['from']} {column} are not all there")
                # A kill may have come between the writing of metrics.json and the end of this file.
                stored[column][new["from"] :] = new[column]
    return metrics


def read_first(folder: str | Path, numbers: Mapping[str, int]) -> dict[str, dict[str, list]] | None:
    """The first numbers[name] values of each metric in it and no other, as `read` gives them; None
    where there are not so many, or they cannot be read."""
    if not numbers:
        return {}
    try:
        metrics = read(Path(folder))
        first = {n: {c: metrics[n][c][:number] for c in COLUMNS} for n, number in numbers.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    counted = all(len(m[c]) == numbers[name] for name, m in first.items() for c in COLUMNS)
    return first if counted else None


def write(folder: str | Path, metrics: Mapping[str, Mapping]) -> None:
    """All of them into metrics.json. Raises OSError."""
    write_atomically(Path(folder, "metrics.json"), json.dumps(metrics, sort_keys=True).encode())
    Path(folder, "metrics.jsonl").unlink(missing_ok=True)
