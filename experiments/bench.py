"""Measure what speed is claimed, side by side in one run, and write results/bench.json.

python experiments/bench.py [--only NAME,...] [--rounds N]

Every row is a ratio of two times that were taken in turn, so that a busy machine slows both; given
are its median over the rounds and its spread (smallest to largest).
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.results import PROJECT
from forgetting.errors import UserError
from forgetting.files import write_atomically


def row(name: str, device: str, ratios: list[float], aim: str) -> dict:
    """One line of the table; ratios: one a round."""
    low, high = min(ratios), max(ratios)
    return {
        "name": name,
        "device": device,
        "ratio": float(f"{np.median(ratios):.3g}"),
        "spread": [float(f"{low:.3g}"), float(f"{high:.3g}")],
        "aim": aim,
    }


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# ------------------------------------------------------------------ drawing many runs


def write_runs(folder: Path, n: int) -> None:
    """n runs of the shipped runs' settings and length, each of a seed of its own, its values moved
    by a little noise."""
    templates = sorted(p.parent for p in (PROJECT / "results/reference").glob("*-cpu-*/run.json"))
    if not templates:
        raise UserError("bench: there are no runs in results/reference to make more from")
    for i in range(n):
        template, seed = templates[i % len(templates)], i // len(templates)
        run = folder / str(i + 1)
        run.mkdir(parents=True)
        noise = np.random.default_rng(i)
        for path in template.iterdir():
            if path.suffix != ".json":
                (run / path.name).write_bytes(path.read_bytes())
                continue
            content = json.loads(path.read_text())
            if path.name == "config.json":
                content["seed"] += 100 * (seed + 1)
            if path.name == "metrics.json":
                for column in content.values():
                    values = np.array(column["values"])
                    column["values"] = (values + noise.normal(0, 0.003, len(values))).tolist()
            (run / path.name).write_text(json.dumps(content))


def draw_many(rounds: int) -> Iterator[dict]:
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


# ------------------------------------------------------------------ checkpoints


def checkpoint_cost(rounds: int) -> Iterator[dict]:
    """A checkpoint against the training between two, at the `cpu` preset's widths and interval, on
    digits at 32 pixels."""
    import torch

    from experiments import checkpoints, gan_probe, sequential_tasks
    from forgetting import data

    torch.set_num_threads(1)
    digits = data.load("digits", "", 32)
    for module, arm in ((sequential_tasks, "rotation"), (gan_probe, "ssgan")):
        study = module.STUDY
        settings = preset_settings(module, "cpu") | {study.arm: arm, "dataset.name": "digits"}
        learner = study.build(settings, digits, torch.device("cpu"), contextlib.nullcontext)
        with tempfile.TemporaryDirectory() as folder:

            def save(learner=learner, folder=folder):
                checkpoints.save(Path(folder), learner.position, {"study": learner.state_dict()})

            learner.step()
            shares = []
            for _ in range(rounds):
                step = seconds(lambda learner=learner: [learner.step() for _ in range(5)]) / 5
                shares.append(seconds(save) / (settings["checkpoint_every"] * step))
        name = f"{module.ex.path}: checkpoints, of training"
        yield row(name, "cpu", shares, "under 0.02")


def preset_settings(module, preset: str) -> dict:
    """All settings of an experiment's preset, flat."""
    from sacred.initialize import create_run

    from experiments.settings import flat

    run = create_run(module.ex, "print_config", {}, [preset], log_level="CRITICAL")
    return flat(run.config)


BENCHMARKS = {"draw_many": draw_many, "checkpoint_cost": checkpoint_cost}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what speed is claimed.")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is timed")
    parser.add_argument("--out", default=PROJECT / "results/bench.json", metavar="FILE")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(BENCHMARKS)
    try:
        unknown = [name for name in names if name not in BENCHMARKS]
        if unknown:
            raise UserError(f"--only: no benchmark {unknown[0]!r}; there are {list(BENCHMARKS)}")
        if options.rounds < 1:
            raise UserError("--rounds: it must be 1 or more")
        out, rows = Path(options.out), {}
        if out.exists():  # rows that are not measured now stay
            rows = {(r["name"], r["device"]): r for r in json.loads(out.read_text())["rows"]}
        print(f"{'':<52} {'device':<6} {'ratio':>8}  spread            aim")
        for name in names:
            for r in BENCHMARKS[name](options.rounds):
                rows[r["name"], r["device"]] = r
                spread = "{:.3g} to {:.3g}".format(*r["spread"])
                print(
                    f"{r['name']:<52} {r['device']:<6} {r['ratio']:8.3g}  {spread:<16}  {r['aim']}"
                )
                content = json.dumps({"rows": list(rows.values())}, indent=1)
                write_atomically(out, content.encode() + b"\n")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
