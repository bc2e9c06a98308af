"""What `make bench` measures: a function a subject, which yields rows of the table."""

import importlib
import time
from collections.abc import Callable, Mapping

import numpy as np


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


def seconds(function: Callable[[], object], device=None) -> float:
    """How long the call takes, until a GPU has done its work, too."""
    import torch

    def finish():
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize()

    finish()
    start = time.perf_counter()
    function()
    finish()
    return time.perf_counter() - start


def in_turn(rounds: int, device, *functions: Callable[[], object]) -> list[list[float]]:
    """Seconds of each function, `rounds` times, taken in turn; the first ones do not count.

    On a GPU a time is of so many calls in a row that they take half a second: of one alone it would
    be how long the GPU takes to begin and to report.
    """
    repeats = []
    for function in functions:
        function()
        n = 1
        if device.type == "cuda":
            for _ in range(10):
                function()
            n = max(1, round(0.5 / seconds(function, device)))
        repeats.append(n)
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, n, times in zip(functions, repeats, taken, strict=True):

            def calls(function=function, n=n):
                for _ in range(n):
                    function()

            times.append(seconds(calls, device) / n)
    return taken


def preset_settings(study: str, preset: str) -> dict:
    """All settings of an experiment's preset, flat."""
    from sacred.initialize import create_run

    from experiments.settings import flat

    module = importlib.import_module(f"experiments.{study}")
    run = create_run(module.ex, "print_config", {}, [preset], log_level="CRITICAL")
    return flat(run.config)


def learner(study: str, preset: str, device, **settings):
    """A study at a preset's settings, on digits at 32 pixels, ready to step: as the runner makes
    it, at the precision that it chooses here."""
    from functools import partial

    import torch

    from experiments import runner
    from experiments.loop import keep_freed_memory

    keep_freed_memory()
    module = importlib.import_module(f"experiments.{study}")
    chosen = preset_settings(study, preset) | {
        "dataset.name": "digits",
        "dataset.size": 32,
        "device": device.type,
        "probe_images": 1000,
    }
    chosen, digits = runner.resolve(chosen | settings, least_classes=2)
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=chosen["precision"] == "bf16"
    )
    return module.STUDY.build(chosen, digits, device, autocast)


def device_name(device) -> str:
    """cpu, or what the GPU is called."""
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
