"""How well a GPU is kept busy: by one run, and by several at once."""

import functools
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks import device_name, in_turn, learner, row, small_sizes
from forgetting.errors import UserError

ARMS = (
    ("ssgan", "gan_probe", {"model": "ssgan"}),
    ("uncond", "gan_probe", {"model": "uncond"}),
    ("sequential vanilla", "sequential_tasks", {"method": "vanilla"}),
    ("sequential rotation", "sequential_tasks", {"method": "rotation"}),
)
PROFILED = 10  # steps
SHOWN = 12  # kernels
AT_ONCE = (1, 4, 8)


def launches(rounds: int, device: torch.device, small: bool = False) -> Iterator[dict]:
    """An iteration at full width and at width 16: its milliseconds, the kernels that it launches,
    and for which share of the time the GPU computes."""
    for width in (None, 16):
        for name, of, arm in ARMS:
            settings = arm | small_sizes(of, small) | _width(of, width)
            study = learner(of, "paper", device, **settings)
            label = f"{name} iteration, {f'width {width}' if width else 'paper'}"
            (times,) = in_turn(rounds, device, study.step)
            kernels, computing = _kernels(study)
            shares = [computing / taken for taken in times]
            for what, values in (
                ("milliseconds", [1000 * taken for taken in times]),
                ("kernels", [kernels]),
                ("computing, of its time", shares),
            ):
                yield row(f"{label}: {what}", device_name(device), values, "-")


def _width(study: str, width: int | None) -> dict:
    """The settings of a net so narrow, of both nets in a GAN; none for the preset's own."""
    if width is None:
        return {}
    keys = ("width",) if study == "sequential_tasks" else ("discriminator_width", "generator_width")
    return dict.fromkeys(keys, width)


def _kernels(study) -> tuple[float, float]:
    """How many kernels a step launches, copies among them, and the seconds for which at least one
    of them runs. On a CPU, which has none, its operations."""
    on_gpu = study.device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    wanted = ("kernel", "gpu_memcpy", "gpu_memset") if on_gpu else ("cpu_op",)
    with profile(activities=[activity]) as profiled:
        for _ in range(PROFILED):
            study.step()
        if on_gpu:
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in wanted)
    if not spans:
        raise UserError("bench: the profiler saw no kernel")
    _say_which(event for event in events if event.get("cat") in wanted)
    covered, end = 0.0, spans[0][0]
    for first, last in spans:
        covered += max(0.0, last - max(first, end))
        end = max(end, last)
    return len(spans) / PROFILED, covered / 1e6 / PROFILED


def _say_which(kernels: Iterable[dict]) -> None:
    """Print the kernels that take the most of a step."""
    times: dict[str, list[float]] = {}
    for kernel in kernels:
        times.setdefault(kernel["name"], []).append(kernel["dur"] / 1000 / PROFILED)
    for name, of_it in sorted(times.items(), key=lambda pair: -sum(pair[1]))[:SHOWN]:
        print(f"  {sum(of_it):7.3f} ms in {len(of_it) / PROFILED:5.1f} of {name[:80]}")


def runs_at_once(rounds: int, device: torch.device, small: bool = False) -> Iterator[dict]:
    """Updates a second of several runs beside each other, each a process of its own, in times of
    one run's alone."""
    of = "sequential_tasks"
    with ProcessPoolExecutor(max(AT_ONCE), get_context("spawn")) as pool:
        for width in (16, None):
            settings = small_sizes(of, small) | _width(of, width)
            key = tuple(settings.items())

            def together(runs: int, updates: int, key=key) -> float:
                start = time.perf_counter()
                list(pool.map(_update, [device.type] * runs, [key] * runs, [updates] * runs))
                return runs * updates / (time.perf_counter() - start)

            _warm_up(pool, device.type, key)
            alone = together(1, 10)
            updates = 2 if small else max(10, round(alone / 3))  # a third of a second's
            rates = {runs: [] for runs in AT_ONCE}
            for _ in range(rounds):
                for runs, of_it in rates.items():
                    of_it.append(together(runs, updates))
            label = f"sequential rotation, {f'width {width}' if width else 'paper'}"
            for runs in AT_ONCE[1:]:
                ratios = [b / a for a, b in zip(rates[1], rates[runs], strict=True)]
                name = f"{label}: {runs} at once, of one's updates a second"
                yield row(name, device_name(device), ratios, f"{runs} is perfect")


def _warm_up(pool: ProcessPoolExecutor, device: str, key: tuple) -> None:
    """Have every process of the pool take its first steps."""
    n = max(AT_ONCE)
    with get_context("spawn").Manager() as manager:
        barrier = manager.Barrier(n)
        list(pool.map(_first_updates, [barrier] * n, [device] * n, [key] * n))


def _first_updates(barrier, device: str, key: tuple) -> None:
    _update(device, key, 10)
    barrier.wait(120)  # so that none takes another's turn


def _update(device: str, key: tuple, updates: int) -> None:
    study = _study(device, key)
    for _ in range(updates):
        study.step()
    if device == "cuda":
        torch.cuda.synchronize()


@functools.cache
def _study(device: str, key: tuple):
    torch.set_num_threads(1)
    settings = {"method": "rotation", **dict(key)}
    return learner("sequential_tasks", "paper", torch.device(device), **settings)
