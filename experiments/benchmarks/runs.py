"""What stored runs, sweeps and checkpoints cost."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from experiments import PROJECT
from experiments.benchmarks import (
    device_name,
    learner,
    preset_settings,
    row,
    seconds,
)
from experiments.run import checkpoints
from experiments.run.exit_codes import TRY_LATER
from experiments.run.packed import files_of
from experiments.run.stored import run_folders
from forgetting.errors import UserError


def write_runs(folder: Path, n: int) -> None:
    """n runs of the shipped runs' settings and length, each of a seed of its own, its values moved
    by a little noise."""
    shipped = run_folders(PROJECT / "results/reference")
    templates = [run for run in shipped if "-cpu-" in run.name]
    if not templates:
        raise UserError("bench: there are no runs in results/reference to make more from")
    for i in range(n):
        template, seed = templates[i % len(templates)], i // len(templates)
        run = folder / str(i + 1)
        run.mkdir(parents=True)
        noise = np.random.default_rng(i)
        for path in (template / name for name in files_of(template)):
            if path.suffix != ".json":
                (run / path.name).write_bytes(path.read_bytes())
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
            if path.name == "config.json":
                content["seed"] += 100 * (seed + 1)
            if path.name == "metrics.json":
                for column in content.values():
                    values = np.array(column["values"])
                    column["values"] = (values + noise.normal(0, 0.003, len(values))).tolist()
            (run / path.name).write_text(json.dumps(content), encoding="utf-8")


def draw_many(rounds: int, device: torch.device) -> Iterator[dict]:
    """All figures, tables and the report from 50, 200 and 800 runs."""
    with tempfile.TemporaryDirectory() as folder:
        folder, numbers = Path(folder), (50, 200, 800)
        for n in numbers:
            write_runs(folder / str(n), n)
        command = [sys.executable, str(PROJECT / "experiments/figures.py")]
        taken: dict[int, list[float]] = {n: [] for n in numbers}
        for _ in range(rounds):
            for n in numbers:
                arguments = ["--runs", str(folder / str(n)), "--out", str(folder / "figures")]
                taken[n].append(
                    seconds(
                        lambda a=arguments: subprocess.run(
                            [*command, *a], check=True, capture_output=True
                        )
                    )
                )
    yield row("draw 200 runs, of 20 s", "cpu", [t / 20 for t in taken[200]], "at most 1")
    for few, many in ((50, 200), (200, 800)):
        ratios = [b / a for a, b in zip(taken[few], taken[many], strict=True)]
        yield row(f"draw {many} runs, of the time for {few}", "cpu", ratios, "at most 4 (linear)")


def sweeps(rounds: int, device: torch.device) -> Iterator[dict]:
    """Four runs by two workers, by one, and in a plain loop of the same commands."""
    from experiments.sweeps.plan import read_plan

    plan = """
        study = "sequential_tasks"
        [grid]
        seed = [0, 1, 2, 3]
        [settings]
        device = "cpu"
        method = "rotation"
        iterations_per_task = 400
        cycles = 1
        """
    taken: dict[str, list[float]] = {"loop": [], "one": [], "two": []}
    inside: dict[str, list[float]] = {"loop": [], "one": [], "two": []}  # a run's own time
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.toml"
        file.write_text(plan, encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}

        def call(script, *words):
            command = [sys.executable, str(PROJECT / "experiments" / script), *words]
            subprocess.run(command, check=True, capture_output=True, env=environment)

        def loop(results):
            study, runs = read_plan(str(file))
            for words in runs:
                call(f"{study}.py", "with", "quick", *words, f"results_dir={results}")

        def sweep(results, workers):
            call("sweep.py", str(file), "--results-dir", results, "--workers", workers)

        for i in range(rounds):
            for name, workers in (("loop", None), ("one", "1"), ("two", "2")):
                results = f"{folder}/{name}-{i}"
                work = partial(sweep, results, workers) if workers else partial(loop, results)
                taken[name].append(seconds(work))
                runs = [
                    json.loads(p.read_text(encoding="utf-8"))
                    for p in Path(results).glob("*/info.json")
                ]
                inside[name].append(sum(sum(run["seconds"].values()) for run in runs) / len(runs))
    pairs = [b / a for a, b in zip(taken["one"], taken["two"], strict=True)]
    yield row("sweep: two workers, of one's time", "cpu", pairs, "0.5 is perfect")
    beside = [b / a for a, b in zip(inside["one"], inside["two"], strict=True)]
    yield row("sweep: a run beside another, of its time alone", "cpu", beside, "1 is perfect")
    minutes = np.median(taken["loop"]) / 4 / 60
    # The engine's cost stands against however long runs take: stated for runs of a minute.
    costs = [(one - loop) / 4 / 60 for one, loop in zip(taken["one"], taken["loop"], strict=True)]
    print(f"(runs of {minutes:.2f} min)")
    yield row("sweep: its cost, of four runs of a minute", "cpu", costs, "under 0.05")


_SSGAN = {"model": "ssgan"}


def checkpoint_cost(rounds: int, device: torch.device) -> Iterator[dict]:
    """A checkpoint against the training between two, at the `cpu` preset's sizes and interval, on
    digits."""
    for name, arm in (("sequential_tasks", {"method": "rotation"}), ("gan_probe", _SSGAN)):
        study = learner(name, "cpu", device, **arm)
        preset = preset_settings(name, "cpu")
        with tempfile.TemporaryDirectory() as folder:

            def save(study=study, folder=folder):
                checkpoints.save(Path(folder), study.position, {"study": study.state_dict()})

            study.step()
            if arm is _SSGAN:  # as many as a run of this preset keeps
                side, every = preset["dataset.size"], preset["probe_every"]
                fakes = torch.zeros(1000, 3, side, side, dtype=torch.uint8)
                steps = range(0, preset["steps"] + 1, every)
                study.fakes = {step: fakes + i for i, step in enumerate(steps)}
            save()  # each generator's fakes are written once, at its own probe
            shares = []
            for _ in range(rounds):
                step = seconds(lambda study=study: [study.step() for _ in range(5)], device) / 5
                shares.append(seconds(save) / (preset["checkpoint_every"] * step))
        yield row(f"{name}: checkpoints, of training", device_name(device), shares, "under 0.02")


COMMANDS = {
    "sequential rotation": ("sequential_tasks.py", "method=rotation"),
    "ssgan": ("gan_probe.py", "model=ssgan"),
}
SMALL_EVALUATION = ["probe_images=60", "probe_features=16"]


def memory(rounds: int, device: torch.device) -> Iterator[dict]:
    """The most memory of training at the paper's sizes, in GB, on digits at 32 pixels: a host's by
    the real commands, a GPU's in a step; and of one probe of all of CIFAR-10, which those do
    without."""
    for name, (script, arm) in COMMANDS.items():
        host = []
        for _ in range(min(rounds, 2)):
            with tempfile.TemporaryDirectory() as folder:
                words = ["paper", arm, "dataset.name=digits", "dataset.size=32", *SMALL_EVALUATION]
                bytes_ = _first_steps(script, words, device, folder)
                host.append(bytes_ / 1e9)
        yield row(f"{name}, paper: host memory, GB", device_name(device), host, "-")
        if device.type == "cuda":
            gb = _device_memory(script.removesuffix(".py"), arm, device)
            yield row(f"{name}, paper: device memory, GB", device_name(device), [gb], "-")
    if device.type == "cpu":
        yield row("linear probe 50,000 x 8,192: host memory, GB", "cpu", [_probes_memory()], "-")


def _device_memory(study: str, arm: str, device: torch.device) -> float:
    """The most GB of a step, after one that looked for the fastest convolutions."""
    key, value = arm.split("=")
    trained = learner(study, "paper", device, **{key: value})
    trained.step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    trained.step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def _probes_memory() -> float:
    """GB of a process that has one of the paper preset's probes, which the runs above have not."""
    code = """
import torch
from forgetting import probes
features, labels = torch.rand(60_000, 8192), torch.arange(60_000) % 10
probes.linear_probe(*(part for both in zip(features.split(50_000), labels.split(50_000))
                      for part in both), c=1e-4, max_iterations=3)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError("bench: the linear probe failed")
    return usage.ru_maxrss * 1024 / 1e9


def start_up(rounds: int, device: torch.device) -> Iterator[dict]:
    """From the command to the end of the first iteration, less the evaluation before it."""
    for name, (script, arm) in COMMANDS.items():
        taken = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                start = time.time()
                _first_steps(script, ["quick", arm], device, folder)
                # Written right after the first iteration; the process ends later than that.
                end = next(Path(folder).glob("1/checkpoint-1-*.pt")).stat().st_mtime
                info = json.loads((Path(folder) / "1/info.json").read_text(encoding="utf-8"))
                taken.append((end - start - info["seconds"]["evaluation"]) / 5)
        yield row(f"{name}: start-up, of 5 s", device_name(device), taken, "at most 1")


def _first_steps(script: str, words: list[str], device: torch.device, folder: str) -> int:
    """Run a command to the end of its first iteration: its peak host memory in bytes."""
    process = subprocess.Popen(
        [
            *(sys.executable, str(PROJECT / "experiments" / script), "with", *words),
            *(f"device={device.type}", f"results_dir={folder}", "stop_after=0.01s"),
        ],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != TRY_LATER:
        raise UserError(f"bench: {script} with {' '.join(words)} did not start")
    return usage.ru_maxrss * 1024
