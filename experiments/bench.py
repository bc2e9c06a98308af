"""Measure what speed is claimed, side by side in one run, and write results/bench.json.

python experiments/bench.py [--only NAME,...] [--rounds N]

Every row is a ratio of two times that were taken in turn, so that a busy machine slows both; given
are its median over the rounds and its spread (smallest to largest).
"""

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

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


# ------------------------------------------------------------------ training iterations

PEER = "torch-mimicry==0.1.16"


def gan_iterations(rounds: int) -> Iterator[dict]:
    """One discriminator and one generator step at full width, against torch-mimicry's, and against
    what the machine's convolutions allow."""
    import torch

    nets = _peers_nets()
    images = torch.rand(64, 3, 32, 32) * 2 - 1
    labels = torch.zeros(64, dtype=torch.long)
    for model, (generator, discriminator) in nets.items():
        learner = _learner("gan_probe", "paper", model=model)
        optimisers = [
            torch.optim.Adam(net.parameters(), 2e-4, (0.0, 0.9))
            for net in (generator, discriminator)
        ]
        log = mock.MagicMock()

        def peers_step(g=generator, d=discriminator, o=optimisers, log=log):
            batch = images, labels
            cpu = torch.device("cpu")
            d.train_step(batch, netG=g, optD=o[1], log_data=log, device=cpu)
            g.train_step(batch, netD=d, optG=o[0], log_data=log, device=cpu)

        learner.step(), peers_step()
        ours, theirs = _in_turn(rounds, learner.step, peers_step)
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        yield row(f"{model} iteration, of torch-mimicry's", "cpu", ratios, "at least 3.5 (bf16)")
        yield _share_of_the_floor(f"{model} iteration", learner.step, rounds)


def _peers_nets() -> dict:
    """torch-mimicry's 32x32 nets by our models' names, from a folder of their own."""
    import torch  # before anything stands in for modules it may look for
    from torch_fidelity import calculate_metrics  # noqa: F401  likewise

    folder = PROJECT / "data" / "peers" / PEER
    if not folder.exists():
        arguments = ["install", "--quiet", "--no-deps", "--target", str(folder), PEER]
        done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True)
        if done.returncode:
            raise UserError(f"bench: {PEER} cannot be installed from the package index")
    # Its nets alone: the package's own import asks for TensorFlow, too.
    for name in ("skimage", "skimage.io", "torch.utils.tensorboard"):
        sys.modules.setdefault(name, mock.MagicMock())
    package = sys.modules.setdefault("torch_mimicry", types.ModuleType("torch_mimicry"))
    package.__path__ = [str(folder / "torch_mimicry")]
    from torch_mimicry.nets import sngan, ssgan

    torch.manual_seed(0)
    return {
        "ssgan": (ssgan.SSGANGenerator32(), ssgan.SSGANDiscriminator32()),
        "uncond": (sngan.SNGANGenerator32(), sngan.SNGANDiscriminator32()),
    }


def sequential_iterations(rounds: int) -> Iterator[dict]:
    """Both arms at full width against the same net as PyTorch would have it by default: fp32,
    contiguous, plain convolutions and poolings, the images from a DataLoader."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from forgetting import networks
    from forgetting.rotation import rotation_labels, turned_copies

    fast = networks.conv_then_average_pool
    for method in ("vanilla", "rotation"):
        learner = _learner("sequential_tasks", "paper", method=method)
        net = networks.build(
            0, networks.Classifier, size=32, width=learner.net.binary_head.in_features,
            binary_outputs=1,
        ).to(memory_format=torch.contiguous_format)  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), 1e-3)
        data = learner.dataset
        loader = iter(
            torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(data.train_images, data.train_labels),
                batch_size=learner.stream.batch_size,
                sampler=torch.utils.data.RandomSampler(data.train_labels, True, 10**6),
                num_workers=0,
            )
        )

        def plain_step(net=net, optimiser=optimiser, loader=loader, method=method):
            networks.conv_then_average_pool = lambda x, conv: F.avg_pool2d(conv(x), 2)
            images, labels = next(loader)
            n = len(images)
            if method == "rotation":
                images = torch.cat([images, turned_copies(images[:16])])
            _, features = net((images.float() / 127.5 - 1).contiguous())
            logits = net.binary_head(features[:n])[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, (labels == 0).float())
            if method == "rotation":
                turned = net.rotation_head(torch.cat([features[:16], features[n:]]))
                loss = loss + nn.functional.cross_entropy(turned, rotation_labels(16))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            networks.conv_then_average_pool = fast

        learner.step(), plain_step()
        ours, plain = _in_turn(rounds, learner.step, plain_step)
        ratios = [b / a for a, b in zip(ours, plain, strict=True)]
        name = f"sequential {method} iteration, of a plain loop's"
        yield row(name, "cpu", ratios, "at least 2 (bf16)")
        yield _share_of_the_floor(f"sequential {method} iteration", learner.step, rounds)


def _in_turn(rounds: int, *functions: Callable[[], object]) -> list[list[float]]:
    """Seconds of each function, `rounds` times, taken in turn."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, times in zip(functions, taken, strict=True):
            times.append(seconds(function))
    return taken


def _share_of_the_floor(name: str, step: Callable[[], object], rounds: int) -> dict:
    """What the step's convolutions and products would take at this machine's rate, of its time."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    conv = torch.nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(64, 128, 16, 16).contiguous(memory_format=torch.channels_last)
    operations = 2 * 64 * 16 * 16 * 128 * 128 * 9

    @torch.inference_mode()
    def convolve():
        for _ in range(5):
            conv(x)

    convolve()
    times, convolutions = _in_turn(rounds, step, convolve)
    floors = [counter.get_total_flops() / (5 * operations / c) for c in convolutions]
    shares = [floor / taken for floor, taken in zip(floors, times, strict=True)]
    return row(f"{name}: floor, of its time", "cpu", shares, "at least 0.7")


def _learner(study: str, preset: str, **settings):
    """A study at a preset's settings, on digits at 32 pixels, ready to step."""
    import torch

    from experiments.loop import _keep_freed_memory
    from forgetting import data

    _keep_freed_memory()
    module = importlib.import_module(f"experiments.{study}")
    digits = data.load("digits", "", 32)
    chosen = preset_settings(module, preset) | {"dataset.name": "digits", "probe_images": 1000}
    return module.STUDY.build(
        chosen | settings, digits, torch.device("cpu"), contextlib.nullcontext,
        **({"to_train": False} if study == "gan_probe" else {}),
    )  # fmt: skip


def linear_probe(rounds: int) -> Iterator[dict]:
    """50,000 x 8,192 features of real images' pixels: ours against scikit-learn on float64."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from forgetting import data, probes

    digits = data.load("digits", "", 64)
    noise = torch.Generator().manual_seed(0)

    def features(images, n):
        chosen = torch.randint(len(images), (n,), generator=noise)
        pixels = images[chosen].float().mean(1).flatten(1).repeat(1, 2)
        return pixels + 40 * torch.randn(pixels.shape, generator=noise), chosen

    train, chosen = features(digits.train_images, 50_000)
    labels = digits.train_labels[chosen]
    test, chosen = features(digits.test_images, 2_000)
    test_labels = digits.test_labels[chosen]
    accuracies = {}

    def ours():
        accuracies["ours"], _ = probes.linear_probe(train, labels, test, test_labels, c=1e-4)

    def theirs():
        mean, deviation = train.double().mean(0), train.double().std(0, correction=0)
        scaled = [((x.double() - mean) / deviation).numpy() for x in (train, test)]
        model = LogisticRegression(C=1e-4, max_iter=500).fit(scaled[0], labels.numpy())
        accuracies["theirs"] = model.score(scaled[1], test_labels.numpy())

    mine, other = _in_turn(rounds, ours, theirs)
    if abs(accuracies["ours"] - accuracies["theirs"]) > 0.002:
        raise UserError(f"bench: the probes' accuracies differ: {accuracies}")
    ratios = [b / a for a, b in zip(mine, other, strict=True)]
    yield row("linear probe 50,000 x 8,192, of float64's", "cpu", ratios, "at least 2")


# ------------------------------------------------------------------ sweeps


def sweeps(rounds: int) -> Iterator[dict]:
    """Four runs by two workers, by one, and in a plain loop of the same commands."""
    from experiments.sweep import read_plan

    plan = """
        study = "sequential_tasks"
        [grid]
        seed = [0, 1, 2, 3]
        [settings]
        method = "rotation"
        iterations_per_task = 400
        cycles = 1
        """
    taken: dict[str, list[float]] = {"loop": [], "one": [], "two": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.toml"
        file.write_text(plan)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}

        def call(script, *words):
            command = [sys.executable, str(PROJECT / "experiments" / script), *words]
            subprocess.run(command, check=True, capture_output=True, env=environment)

        def loop(results):
            study, runs = read_plan(str(file))
            for words in runs:
                call(f"{study}.py", "with", "quick", *words, f"results_dir={results}")

        for i in range(rounds):
            for name in taken:
                results = f"{folder}/{name}-{i}"
                if name == "loop":
                    taken[name].append(seconds(lambda r=results: loop(r)))
                    continue
                workers = {"one": "1", "two": "2"}[name]
                words = [str(file), "--results-dir", results, "--workers", workers]
                taken[name].append(seconds(lambda w=words: call("sweep.py", *w)))
    pairs = [b / a for a, b in zip(taken["one"], taken["two"], strict=True)]
    yield row("sweep: two workers, of one's time", "cpu", pairs, "0.5 is perfect")
    minutes = np.median(taken["loop"]) / 4 / 60
    # The engine's cost stands against however long runs take: stated for runs of a minute.
    costs = [(one - loop) / 4 / 60 for one, loop in zip(taken["one"], taken["loop"], strict=True)]
    print(f"(runs of {minutes:.2f} min)")
    yield row("sweep: its cost, of four runs of a minute", "cpu", costs, "under 0.05")


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
            if study.arm == "model":  # as many as a run of this preset keeps
                fakes = torch.zeros(1000, 3, 32, 32, dtype=torch.uint8)
                learner.snapshots = {500 * i: fakes + i for i in range(11)}
                save()  # each is written once, at its own probe
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


BENCHMARKS = {
    "gan_iterations": gan_iterations,
    "sequential_iterations": sequential_iterations,
    "linear_probe": linear_probe,
    "sweeps": sweeps,
    "draw_many": draw_many,
    "checkpoint_cost": checkpoint_cost,
}


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
