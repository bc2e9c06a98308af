import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm
from PIL import Image

from experiments import gan_probe, sequential_tasks
from experiments.run import runner
from forgetting import data
from gan import recordings

PROJECT = Path(__file__).resolve().parents[1]
TINY = ["quick", "iterations_per_task=3", "cycles=1", "width=4"]
TINY += ["probe_images=60", "probe_features=16"]
TINY += ["device=cpu"]  # a GPU does not repeat to the bit
TINY_GAN = ["quick", "steps=4", "width=4", "probe_every=2", "probe_images=60", "probe_features=16"]
TINY_GAN += ["quality_every=4", "quality_images=500", "device=cpu"]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
# A shell ignores Ctrl-C for what it starts in the background, and so would every command here.
signal.signal(signal.SIGINT, signal.default_int_handler)


_warm: list[warm.Warm] = []


def command(script: str, *arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    """Run a script of the project as a user would, in the folder `cwd`: in a process that is
    forked, or with any of `subprocess.run`'s options in one that is started."""
    argv = [str(PROJECT / "experiments" / script), *arguments]
    if not options:
        if not _warm:
            _warm.append(warm.Warm(ENVIRONMENT))
        return _warm[0].run(argv, cwd, timeout=240)
    options = {"env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 240, **options}
    return subprocess.run([sys.executable, *argv], cwd=cwd, **options)


def pytest_sessionfinish() -> None:
    for server in _warm:
        server.close()


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


def brought_to_the_end(study, *words: str) -> None:
    """Run a study's command in this process."""
    with pytest.raises(SystemExit) as end:
        runner.main(study, [f"{study.name}.py", "with", *words])
    assert end.value.code == 0


# What several files read is of the session: it is made but once.


@pytest.fixture(scope="session")
def sequential_runs(tmp_path_factory) -> Path:
    """Three arms of two seeds with a head a task, and one vanilla run of another width."""
    folder = tmp_path_factory.mktemp("runs")
    small = [*TINY, "cycles=2", "head=per_task", f"results_dir={folder}"]
    for arguments in (
        *([f"method={m}", f"seed={s}"] for m in ("vanilla", "rotation", "augment") for s in (0, 1)),
        ["method=vanilla", "width=5"],
    ):
        brought_to_the_end(sequential_tasks.STUDY, *small, *arguments)
    return folder


@pytest.fixture(scope="session")
def gan_runs(tmp_path_factory) -> Path:
    """uncond and ssgan of two seeds each, and the control without a generator."""
    folder = tmp_path_factory.mktemp("gans")
    for arguments in (["seed=0"], ["seed=1"], ["model=rotation_only"]):
        brought_to_the_end(gan_probe.STUDY, *TINY_GAN, *arguments, f"results_dir={folder}")
    return folder


@pytest.fixture(scope="session")
def recording_file(digits, tmp_path_factory) -> Path:
    """The recording of a tiny GAN of digits."""
    from test_gan import study  # only here: files of tests import this one

    learner = study(digits, model="uncond", steps=8, record_every=2, generator_width=4)
    for _ in range(8):
        learner.step()
    path = tmp_path_factory.mktemp("recordings") / "tiny.pt"
    recordings.write(learner, {"seed": 3, "generator_width": 4, "model": "uncond"}, path)
    return path


@pytest.fixture(scope="session")
def recording(recording_file) -> recordings.Recording:
    return recordings.read(str(recording_file))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Nets this small gain nothing from a second thread, and two wait for each other where the
    machine is busy with something else."""
    torch.set_num_threads(1)
