"""What each method costs: the time of a step and the peak memory, times the baseline's."""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from experiments.benchmarks import (
    MEMORY,
    TIME,
    cost,
    device_name,
    in_turn,
    learner,
    preset_settings,
    row,
)
from forgetting.methods import PLAIN, available
from gan import recordings

SIZE, WIDTH, GENERATORS = 16, 16, 2
TURN, STEPS = 300, 10  # updates: of a generator, and of a time that is taken


def methods(
    rounds: int, device: torch.device, names: Sequence[str] | None = None
) -> Iterator[dict]:
    """Every method, or those of these names, at the `cpu` preset's sizes for 16 pixels: on recorded
    opponents, and in a GAN. Past a boundary and past `lecam.start`, so that all of it is at work;
    what happens at a boundary itself, every few hundred updates, is no part of it."""
    those = names or [name for name, of in available().items() if name != PLAIN and not of.uniform]
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "digits.pt"
        _record(recording)
        for of, make in (("opponents", partial(_opponents, recording)), ("GAN", _gan)):
            yield from _costs(rounds, device, those, of, make)


def _costs(
    rounds: int, device: torch.device, those: Sequence[str], of: str, make: Callable
) -> Iterator[dict]:
    plain = make(PLAIN, device)
    for name in those:
        pairs = zip(*in_turn(rounds, device, plain, make(name, device)), strict=True)
        yield row(cost(name, TIME, of), device_name(device), [b / a for a, b in pairs], "-")
    least = _peak_bytes(make, PLAIN, device)
    for name in those:
        ratio = _peak_bytes(make, name, device) / least
        yield row(cost(name, MEMORY, of), device_name(device), [ratio], "-")


def _record(path: Path) -> None:
    """Opponents of 16 pixels, made here: those that are shipped are of other images."""
    asked = {"model": "uncond", "generator_width": 20, "record_every": 1}
    gan = _ready("gan_probe", torch.device("cpu"), asked)
    for _ in range(GENERATORS):
        gan.step()
    recordings.write(gan, {"seed": 0, "model": "uncond", "generator_width": 20}, path)


def _opponents(recording: Path, method: str, device: torch.device) -> Callable[[], None]:
    asked = {"stream.name": "fakes", "stream.recording": str(recording), "method": method}
    asked |= {"width": WIDTH, "iterations_per_task": TURN, "cycles": 4}
    return _at_work(_ready("sequential_tasks", device, asked), 4 * TURN)


def _gan(method: str, device: torch.device) -> Callable[[], None]:
    model = "uncond" if method == PLAIN else f"uncond+{method}"
    asked = {"model": model, "discriminator_width": 2 * WIDTH, "generator_width": 20}
    return _at_work(_ready("gan_probe", device, asked), 1500)


def _ready(study: str, device: torch.device, asked: dict):
    """As the command would make it: with all that follows from what is asked for."""
    asked = {"dataset.name": "digits", "dataset.size": SIZE, "device": device.type, **asked}
    whole = preset_settings(study, "cpu", probe_images=1000, **asked)
    del whole["preset"], whole["device"]
    return learner(study, "cpu", device, **whole)


def _at_work(study, boundary: int) -> Callable[[], None]:
    """Some steps of the study, from a task's end on."""
    study.step()
    study.position = boundary - 1
    study.step()

    def steps():
        for _ in range(STEPS):
            study.step()

    return steps


def _peak_bytes(make: Callable, method: str, device: torch.device) -> int:
    """Of a process of its own that trains, beyond what it has to begin with."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_peak, make, method, device).result()


def _peak(make: Callable, method: str, device: torch.device) -> int:
    before = _host_bytes("VmRSS")
    make(method, device)()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return _host_bytes("VmHWM") - before


def _host_bytes(what: str) -> int:
    """Of this process, now (VmRSS) or at most (VmHWM): getrusage would count its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(rf"^{what}:\s+(\d+) kB", status, re.M)[1])
