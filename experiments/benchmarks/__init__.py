"""What `make bench` measures: a function a subject, which yields rows of the table."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from forgetting.files import write_atomically

REHEARSAL = "rehearsal"  # the device of rows whose figures mean nothing
# What the functions that `make gpu` calls take in a rehearsal, which is for their paths alone.
SMALL = {
    "sequential_tasks": {"width": 4, "batch_size": 8, "rotated_images": 2},
    "gan_probe": {"discriminator_width": 4, "generator_width": 4, "batch_size": 8},
}
# Of the rows of `methods`.
TIME, MEMORY = "a step's time, of {}'s", "peak memory, of {}'s"


def cost(method: str, what: str, of: str = "opponents") -> str:
    """The name of the row of a method. what: TIME or MEMORY; of: opponents or GAN."""
    return f"{method}, {of}: {what.format('vanilla' if of == 'opponents' else 'uncond')}"


def row(name: str, device: str, ratios: list[float], aim: str | Mapping[str, str]) -> dict:
    """One line of the table; ratios: one a round. aim: for both devices, or each its own."""
    low, high = min(ratios), max(ratios)
    if not isinstance(aim, str):
        aim = aim["cpu" if device == "cpu" else "gpu"]
    return {
        "name": name,
        "device": device,
        "ratio": float(f"{np.median(ratios):.3g}"),
        "spread": [float(f"{low:.3g}"), float(f"{high:.3g}")],
        "aim": aim,
    }


def put(rows: Iterable[dict], file: Path, but: str | None = None) -> None:
    """Put rows into a table on disk, each in place of the one of its name and device; rows of the
    device `but` are dropped first."""
    there = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    table = {(r["name"], r["device"]): r for r in there if r["device"] != but}
    table |= {(r["name"], r["device"]): r for r in rows}
    content = json.dumps({"rows": list(table.values())}, indent=1)
    write_atomically(file, content.encode() + b"\n")


def seconds(function: Callable[[], object], device=None, calls: int = 1) -> float:
    """How long so many calls take; on a GPU by its own clock, until it has done their work."""
    import torch

    if device is None or device.type != "cuda":
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


@dataclass(frozen=True)
class Elsewhere:
    """A step that a process of its own takes; `elsewhere` makes one."""

    process: ProcessPoolExecutor


@contextmanager
def elsewhere(*makers: Callable[[], Callable]) -> Iterator[list[Elsewhere]]:
    """Of each of the functions, which make a step, the step in a process of its own, as its users
    have it. All are there before any is taken: none begins while another is timed."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for _ in makers
        ]
        made = [p.submit(_make_step, make) for p, make in zip(processes, makers, strict=True)]
        for step in made:
            step.result()
        yield [Elsewhere(process) for process in processes]


_steps: list[Callable] = []  # of the process that `elsewhere` started


def _make_step(make: Callable[[], Callable]) -> None:
    _steps.append(make())


def with_our_allocator(make: Callable[[], Callable]) -> Callable:
    """What `make` makes, in a process with our runner's setting of the memory allocator, which
    speeds up others, too."""
    from experiments.run.process import keep_freed_memory

    keep_freed_memory()
    return make()


def _take_steps(device, calls: int) -> float:
    return seconds(_steps[0], device, calls)


def in_turn(rounds: int, device, *functions: Callable[[], object] | Elsewhere) -> list[list[float]]:
    """Seconds of each function, `rounds` times, taken in turn; the first ones do not count.

    On a GPU a time is of so many calls in a row that they take 0.3 seconds: of one alone it would
    be how long the GPU takes to begin and to report.
    """

    def taken(function, calls):
        if isinstance(function, Elsewhere):
            return function.process.submit(_take_steps, device, calls).result()
        return seconds(function, device, calls)

    repeats = []
    for function in functions:
        taken(function, 1)
        n = 1
        if device.type == "cuda":
            taken(function, 10)
            n = max(1, round(0.3 / taken(function, 1)))
        repeats.append(n)
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, n, of_it in zip(functions, repeats, times, strict=True):
            of_it.append(taken(function, n) / n)
    return times


def preset_settings(study: str, preset: str, **asked) -> dict:
    """All settings of an experiment's preset, flat, where those of `asked` are set."""
    from sacred.initialize import create_run

    from experiments.run.study import studies
    from forgetting.settings import flat, nested

    experiment = studies()[study].experiment
    run = create_run(experiment, "print_config", nested(asked), [preset], log_level="CRITICAL")
    return flat(run.config)


def learner(study: str, preset: str, device, **settings):
    """A study at a preset's settings, on digits at its size or 32 pixels, ready to step: as the
    runner makes it, at the precision that it chooses here."""
    from functools import partial

    import torch

    from experiments.run import resolve
    from experiments.run.process import prepare
    from experiments.run.study import studies

    chosen = preset_settings(study, preset)
    chosen |= {
        "dataset.name": "digits",
        "dataset.size": chosen["dataset.size"] or 32,
        "device": device.type,
        "probe_images": 1000,
    }
    chosen, digits = resolve.resolve(chosen | settings, least_classes=2)
    prepare(device, chosen["precision"])
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=chosen["precision"] == "bf16"
    )
    return studies()[study].build(chosen, digits, device, autocast)


def small_sizes(study: str, small: bool) -> dict:
    """The settings of a rehearsal, or none."""
    return SMALL[study] if small else {}


def device_name(device) -> str:
    """cpu, or what the GPU is called."""
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
