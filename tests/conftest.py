import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from forgetting import data

PROJECT = Path(__file__).resolve().parents[1]
TINY = ["quick", "iterations_per_task=3", "cycles=1", "width=4", "probe_images=60"]


def command(script: str, *arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    """Run a script of the project as a user would, in the folder `cwd`."""
    return subprocess.run(
        [sys.executable, str(PROJECT / "experiments" / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        **options,
    )


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits", "nowhere")


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    torch.set_num_threads(min(2, os.cpu_count() or 1))
