"""A run's metrics: in metrics.json as Sacred has it, and while the run goes on in metrics.jsonl.

To write all of them anew at each heartbeat would cost the more the longer a run is. So what was
logged since metrics.json was written stands in lines of metrics.jsonl: {name: {"from": how many
values came before, "steps": [...], "values": [...], "timestamps": [...]}}.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from experiments.run.packed import Folder
from forgetting.files import write_atomically

COLUMNS = ("steps", "values", "timestamps")


def append(folder: str | Path, new: Mapping[str, Mapping]) -> None:
    """Add a line, as above. Raises OSError."""
    with open(Path(folder, "metrics.jsonl"), "ab") as file:
        file.write(json.dumps(new, sort_keys=True).encode() + b"\n")


def read(folder: Folder) -> dict[str, dict[str, list]]:
    """All metrics so far, as metrics.json is to hold them. Raises OSError where there are none,
    ValueError, KeyError, TypeError, AttributeError or one of `packed.DAMAGED` where a file is
    damaged."""
    whole, log = folder / "metrics.json", folder / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    metrics = json.loads(whole.read_bytes()) if whole.exists() or not lines else {}
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the run was killed while it wrote it
        for name, new in json.loads(line).items():
            stored = metrics.setdefault(name, {column: [] for column in COLUMNS})
            for column in COLUMNS:
                # A kill may have come between the writing of metrics.json and the end of this file.
                stored[column][new["from"] :] = new[column]
    return metrics


def write(folder: str | Path, metrics: Mapping[str, Mapping]) -> None:
    """All of them into metrics.json. Raises OSError."""
    write_atomically(Path(folder, "metrics.json"), json.dumps(metrics, sort_keys=True).encode())
    Path(folder, "metrics.jsonl").unlink(missing_ok=True)
