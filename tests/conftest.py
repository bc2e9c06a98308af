import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from forgetting import data

PROJECT = Path(__file__).resolve().parents[1]
TINY = ["quick", "iterations_per_task=3", "cycles=1", "width=4"]
TINY += ["probe_images=60", "probe_features=16"]
TINY += ["device=cpu"]  # a GPU does not repeat to the bit


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
# A shell ignores Ctrl-C for what it starts in the background, and so would every command here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def command(script: str, *arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    """Run a script of the project as a user would, in the folder `cwd`."""
    return subprocess.run(
        [sys.executable, str(PROJECT / "experiments" / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        **{"env": ENVIRONMENT, **options},
    )


def with_settings(run, **settings):
    """A stored run as if it had been run with these settings."""
    return dataclasses.replace(run, config=run.config | settings, identity=run.identity | settings)


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits", "nowhere")


@pytest.fixture
def folder(tmp_path, digits):
    """Real digits 0 to 2 as image files: greyscale and colour, of several shapes."""
    for split, images, labels in (
        ("train", digits.train_images, digits.train_labels),
        ("test", digits.test_images, digits.test_labels),
    ):
        for c in range(3):
            (tmp_path / split / f"digit {c}").mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:4]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture = picture.resize([(8, 8), (20, 30), (40, 16), (9, 9)][i])
                picture = picture.convert("L" if i % 2 else "RGB")
                picture.save(tmp_path / split / f"digit {c}" / f"{i}.png")
    return tmp_path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Nets this small gain nothing from a second thread, and two wait for each other where the
    machine is busy with something else."""
    torch.set_num_threads(1)
