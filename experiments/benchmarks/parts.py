"""The parts of `make gpu`, each a process: python -m experiments.benchmarks.parts N OUT SECONDS
[IMAGES]. The last line that a part says is what becomes of it in the report.

With REHEARSE=1 in the environment they take the same way on a CPU, with small sizes.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import PROJECT
from experiments.benchmarks import REHEARSAL, put, row
from experiments.benchmarks.seeds import complete_runs

REHEARSED = bool(os.environ.get("REHEARSE"))
DEVICE = "cpu" if REHEARSED else "cuda"
EXPERIMENTS = PROJECT / "experiments"
IMAGES_A_CLASS = {"train": 300, "test": 100}  # of the folder for 128 pixels
CHECKPOINT_EVERY, ENOUGH = 50, 5.0  # of a slice: updates; seconds of training that are measured
# A slice is of training: its evaluations are of little, but for the one that is measured.
LITTLE = ["probe_images=100", "probe_features=16", "quality_images=500"]
if REHEARSED:
    IMAGES_A_CLASS = {"train": 12, "test": 8}
    CHECKPOINT_EVERY, ENOUGH = 2, 0.0


def main() -> None:
    part, out, seconds, *images = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    function = (machine, tests, speed, sequential_study, gan_slices)[int(part)]
    sys.exit(function(Path(out), end, images[0] if images else None))


def machine(out: Path, end: float, images: str | None) -> int:
    """Read the images, so that no part does, and say in JSON what this machine is."""
    start = time.monotonic()
    import torch
    import torchvision

    from forgetting import data

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    started = time.monotonic()
    if images:
        data.load("image_folder", images, 32)
    about = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "seconds_to_import": round(started - start, 1),
        "seconds_to_read_images": round(time.monotonic() - started, 1),
    }
    if not about["gpu"] and not REHEARSED:
        sys.exit("there is no CUDA device here; REHEARSE=1 rehearses on a CPU")
    print(json.dumps(about))
    return 0


def tests(out: Path, end: float, images: str | None) -> int:
    """The tests that need a GPU."""
    words = ["-m", "pytest", "-m", "gpu", "-ra", "--durations=20", "-p", "no:cacheprovider"]
    return _call([*words, str(PROJECT / "tests" / "test_gpu.py")])


def speed(out: Path, end: float, images: str | None) -> int:
    """The benchmark's GPU column."""
    from experiments.bench import OF_A_LOAN

    words = [str(EXPERIMENTS / "bench.py"), "--only", ",".join(OF_A_LOAN)]
    words += ["--out", str(out / "bench.json")]
    more = ["--rehearse", "--rounds", "1"] if REHEARSED else ["--device", "cuda", "--rounds", "3"]
    return _call([*words, *more])


def sequential_study(out: Path, end: float, images: str | None) -> int:
    """As many recorded opponents, met by planted nets of the paper's width and by others, as are
    through in time, published."""
    sizes, seeds, planted = ["paper"], range(1, 11), 1500
    if REHEARSED:
        sizes, seeds = ["quick", "iterations_per_task=3", "cycles=1", "width=4"], [1]
        sizes, planted = [*sizes, "probe_images=60", "checkpoint_every=4"], 2
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            f"{method}-{plant}-{seed}": [
                *(str(EXPERIMENTS / "sequential_tasks.py"), "with", *sizes, *_data(images)),
                *_opponents(images, seed),
                *(f"device={DEVICE}", f"method={method}", f"plant_updates={plant}", f"seed={seed}"),
            ]
            for seed in seeds
            for method in ("vanilla", "rotation", "replay")
            for plant in (planted, 0)
        }
        updates = 24 if REHEARSED else 4_800
        complete = complete_runs(runs, Path(folder), updates, end - 8)
        if complete:
            exported = Path(folder) / "exported"
            words = [str(EXPERIMENTS / "results.py"), "export", "--out", str(exported)]
            code = _call([*words, *(word for run in complete for word in ("--runs", str(run)))])
            if not code:
                with tarfile.open(out / "runs.tar.gz", "w:gz") as archive:
                    archive.add(exported, ".")
        names = " ".join(run.name for run in complete)
    print(f"{len(complete)} runs complete: {names}")
    return code if complete else 1


def gan_slices(out: Path, end: float, images: str | None) -> int:
    """Slices of the GANs' study at the paper's sizes: speed, memory, and one whole evaluation."""
    paper = ["quick", "width=4", "batch_size=8"] if REHEARSED else ["paper"]
    at_32 = [*_data(images), *([] if images else ["dataset.size=32"])]
    large = 16 if REHEARSED else 128
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        _few_images(folder / "few", images)
        at_large = ["dataset.name=image_folder", f"dataset.root={folder / 'few'}"]
        at_large += [f"dataset.size={large}"]
        for name, model, data, left_for_others in (
            ("ssgan, paper", "ssgan", at_32, 0.5),
            ("uncond, paper", "uncond", at_32, 0.5),
            (f"ssgan, paper at {large} pixels", "ssgan", at_large, 0.2),
        ):
            words = [*paper, f"model={model}", *data, *LITTLE]
            last_moment = end - left_for_others * (end - time.monotonic())
            failed += _slice(name, words, out, folder / name, last_moment)
        words = [*paper, "model=ssgan", *at_32, *(LITTLE if REHEARSED else [])]
        failed += _evaluation("ssgan, paper", words, out, folder / "whole")
    print(f"failed: {', '.join(failed)}" if failed else "all slices measured")
    return 1 if failed else 0


def _slice(name: str, words: list[str], out: Path, folder: Path, end: float) -> list[str]:
    """Rows of a run's speed and memory, from as much of it as is enough and there is before `end`;
    [name] where that was too little."""
    start = time.monotonic()
    words = [*words, f"checkpoint_every={CHECKPOINT_EVERY}"]
    process = subprocess.Popen(_gan_probe(words, folder))
    # Slow updates come first: a GPU's convolutions are chosen then.
    first = last = None
    while process.poll() is None and time.monotonic() < end:
        if _updates(folder) > (last or (0, 0))[0]:
            last = _spent(folder) or last
            first = first or last
        if first and last[0] > first[0] and last[1] - first[1] >= ENOUGH:
            break
        time.sleep(0.1)
    process.terminate()  # it stops in good order, and writes what memory it took
    try:
        process.wait(30 if REHEARSED else 8)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if not first or last[0] == first[0]:
        print(f"{name}: too few updates in {time.monotonic() - start:.0f} s")
        return [name]
    (step_1, seconds_1), (step_2, seconds_2) = first, last
    print(f"{name}: from update {step_1} to {step_2}, {time.monotonic() - start:.0f} s in all")
    info = _info(folder)
    rows = [
        (f"{name}: seconds for 1,000 updates", 1000 * (seconds_2 - seconds_1) / (step_2 - step_1))
    ]
    if info["peak_device_bytes"]:
        rows.append((f"{name}: a run's device memory, GB", info["peak_device_bytes"] / 1e9))
    _put(rows, info, out)
    return []


def _evaluation(name: str, words: list[str], out: Path, folder: Path) -> list[str]:
    """Rows of what evaluations cost in a run of one update: the untrained one, which chooses the
    probes' C, and the one at the end."""
    if subprocess.call(_gan_probe([*words, "steps=1"], folder)):
        return [f"{name}: evaluation"]
    info = _info(folder)
    rows = [
        (f"{name}: two evaluations, {what}, seconds", spent)
        for what, spent in info["evaluation_seconds"].items()
    ]
    _put(rows, info, out)
    return []


def _gan_probe(words: list[str], folder: Path) -> list[str]:
    command = [sys.executable, str(EXPERIMENTS / "gan_probe.py"), "with", *words]
    return [*command, f"device={DEVICE}", f"results_dir={folder}"]


def _checkpoints(folder: Path) -> dict[int, Path]:
    """Updates -> the checkpoint of a run's folder of results that holds them."""
    return {int(path.name.split("-")[1]): path for path in folder.glob("*/checkpoint-*.pt")}


def _updates(folder: Path) -> int:
    return max(_checkpoints(folder), default=0)


def _spent(folder: Path) -> tuple[int, float] | None:
    """(updates, seconds spent training) by the newest checkpoint, once there is one on the way."""
    import torch

    updates = _updates(folder)
    if updates < CHECKPOINT_EVERY:
        return None
    try:
        path = _checkpoints(folder)[updates]
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (KeyError, OSError, RuntimeError, EOFError):  # just replaced by the next
        return None
    return updates, state["seconds"]["training"]


def _info(folder: Path) -> dict:
    (file,) = folder.glob("*/info.json")
    return json.loads(file.read_text(encoding="utf-8"))


def _put(rows: Sequence[tuple[str, float]], info: dict, out: Path) -> None:
    device = REHEARSAL if REHEARSED else info["gpu"]
    for name, value in rows:
        print(f"{name}: {value:.4g}")
    put([row(name, device, [value], "-") for name, value in rows], out / "bench.json")


def _data(images: str | None) -> list[str]:
    if not images:
        return ["dataset.name=digits", *([] if REHEARSED else ["dataset.size=32"])]
    return [
        *("dataset.name=image_folder", f"dataset.root={images}"),
        "dataset.label=CIFAR-10 (JPEG q75)",
    ]


def _opponents(images: str | None, seed: int) -> list[str]:
    name, size = (f"uncond_{seed}", 16) if images else ("digits", 8)
    return ["stream.name=fakes", f"stream.recording={name}", f"dataset.size={size}"]


def _few_images(folder: Path, images: str | None) -> None:
    """A folder of few images a class: links to those given, or digits as files."""
    if images:
        for split, n in IMAGES_A_CLASS.items():
            for of_class in sorted(p for p in Path(images, split).iterdir() if p.is_dir()):
                (folder / split / of_class.name).mkdir(parents=True)
                for path in sorted(of_class.iterdir())[:n]:
                    (folder / split / of_class.name / path.name).symlink_to(path)
        return
    from PIL import Image

    from forgetting import data

    digits = data.load("digits", "")
    for split, n in IMAGES_A_CLASS.items():
        pixels, labels = getattr(digits, f"{split}_images"), getattr(digits, f"{split}_labels")
        for c in range(10):
            (folder / split / str(c)).mkdir(parents=True)
            for i, image in enumerate(pixels[labels == c][:n]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture.save(folder / split / str(c) / f"{i:03d}.png")


def _call(words: list[str]) -> int:
    return subprocess.call([sys.executable, *words], cwd=PROJECT)


if __name__ == "__main__":
    main()
