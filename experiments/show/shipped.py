"""Which runs came with the project."""

from pathlib import Path

from experiments import PROJECT
from experiments.run.stored import StoredRun

SHIPPED = PROJECT.resolve() / "results/reference"


def is_shipped(run: StoredRun) -> bool:
    return in_shipped(run.folder)


def in_shipped(folder: str | Path) -> bool:
    return Path(str(folder)).resolve().is_relative_to(SHIPPED)
