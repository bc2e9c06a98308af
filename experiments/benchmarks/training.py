"""How fast both studies train: against PyTorch's defaults, a well-kept library, and what
the machine's convolutions allow."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments import PROJECT
from experiments.benchmarks import (
    Elsewhere,
    device_name,
    elsewhere,
    in_turn,
    learner,
    preset_settings,
    row,
    seconds,
    small_sizes,
    with_our_allocator,
)
from experiments.run import resolve
from forgetting import data, networks
from forgetting.errors import UserError
from forgetting.rotation import rotation_labels, turned_copies

PEER = "torch-mimicry==0.1.16"
AIM_PEER = {"cpu": "at least 3.5 (bf16)", "gpu": "at least 10"}
AIM_PLAIN = {"cpu": "at least 2 (bf16)", "gpu": "at least 5"}
AIM_FLOOR = {"cpu": "at least 0.7", "gpu": "at least 0.4"}
LOOPS = (
    ("ssgan", "gan_probe", {"model": "ssgan"}),
    ("sequential rotation", "sequential_tasks", {"method": "rotation"}),
)


def gan_iterations(rounds: int, device: torch.device, small: bool = False) -> Iterator[dict]:
    """One discriminator and one generator step at full width, against torch-mimicry's, and against
    what the machine's convolutions allow."""
    folder = _peers_folder()
    settings = preset_settings("gan_probe", "paper") | small_sizes("gan_probe", small)
    sizes = {"ngf": settings["generator_width"], "ndf": settings["discriminator_width"]}
    models = ("ssgan", "uncond")
    steps = {
        model: partial(_peers_step, folder, model, device, settings["batch_size"], sizes)
        for model in models
    }
    with _others(steps, device) as theirs:
        for model in models:
            settings = {"model": model, **small_sizes("gan_probe", small)}
            study = learner("gan_probe", "paper", device, **settings)
            operations = _operations(study)
            name = f"{model} iteration, of torch-mimicry's"
            yield from _against(name, AIM_PEER, rounds, study, theirs[model])
            yield _share_of_the_floor(f"{model} iteration", study, operations, rounds)


def _peers_folder() -> Path:
    """Where torch-mimicry is; it is put there, alone, if it is nowhere."""
    installed = importlib.util.find_spec("torch_mimicry")
    if installed and installed.submodule_search_locations:
        return Path(installed.submodule_search_locations[0]).parent
    folder = PROJECT / "data" / "peers" / PEER
    if not folder.exists():
        arguments = ["install", "--quiet", "--no-deps", "--target", str(folder), PEER]
        done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True)
        if done.returncode:
            raise UserError(f"bench: {PEER} cannot be installed from the package index")
    return folder


def _peers_step(
    folder: Path, model: str, device: torch.device, batch_size: int, sizes: dict[str, int]
) -> Callable[[], None]:
    """The iteration of torch-mimicry's 32x32 nets that has our model's name. sizes: ngf, ndf."""
    # Its nets alone: the package's own import asks for TensorFlow, too.
    for name in ("skimage", "skimage.io", "torch.utils.tensorboard"):
        sys.modules.setdefault(name, mock.MagicMock())
    package = sys.modules.setdefault("torch_mimicry", types.ModuleType("torch_mimicry"))
    package.__path__ = [str(folder / "torch_mimicry")]
    from torch_mimicry.nets import sngan, ssgan

    torch.manual_seed(0)
    generator, discriminator = {
        "ssgan": (ssgan.SSGANGenerator32, ssgan.SSGANDiscriminator32),
        "uncond": (sngan.SNGANGenerator32, sngan.SNGANDiscriminator32),
    }[model]
    nets = [
        net(**{size: sizes[size]}).to(device)
        for net, size in ((generator, "ngf"), (discriminator, "ndf"))
    ]
    optimisers = [torch.optim.Adam(net.parameters(), 2e-4, (0.0, 0.9)) for net in nets]
    batch = (
        torch.rand(batch_size, 3, 32, 32, device=device) * 2 - 1,
        torch.zeros(batch_size, dtype=torch.long, device=device),
    )
    common = {"log_data": mock.MagicMock(), "device": device}

    def step():
        nets[1].train_step(batch, netG=nets[0], optD=optimisers[1], **common)
        nets[0].train_step(batch, netD=nets[1], optG=optimisers[0], **common)

    return step


def sequential_iterations(rounds: int, device: torch.device, small: bool = False) -> Iterator[dict]:
    """Both arms at full width, on a GPU at width 16, too, against the same net as PyTorch would
    have it by default: fp32, contiguous, plain convolutions and poolings, the images from a
    DataLoader."""
    sizes = small_sizes("sequential_tasks", small)
    arms = {(method, None): sizes for method in ("vanilla", "rotation")}
    if device.type == "cuda" or small:
        arms |= {(method, 16): sizes | {"width": 16} for method in ("vanilla", "rotation")}
    steps = {arm: partial(_plain_step, arm[0], device, chosen) for arm, chosen in arms.items()}
    with _others(steps, device) as theirs:
        for (method, width), chosen in arms.items():
            study = learner("sequential_tasks", "paper", device, method=method, **chosen)
            operations = _operations(study)
            name = f"sequential {method} iteration{f', width {width}' if width else ''}"
            others = theirs[method, width]
            yield from _against(f"{name}, of a plain loop's", AIM_PLAIN, rounds, study, others)
            yield _share_of_the_floor(name, study, operations, rounds)


def _plain_step(method: str, device: torch.device, sizes: dict) -> Callable[[], None]:
    """The same iteration as one writes it first. sizes: settings other than the preset's."""
    settings = preset_settings("sequential_tasks", "paper") | sizes
    rotated = settings["rotated_images"]
    net = networks.build(
        0, networks.Classifier, size=32, width=settings["width"], binary_outputs=1
    ).to(device, memory_format=torch.contiguous_format)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    digits = data.load("digits", "", 32)
    loader = iter(
        torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(digits.train_images, digits.train_labels),
            batch_size=settings["batch_size"],
            sampler=torch.utils.data.RandomSampler(digits.train_labels, True, 10**6),
        )
    )

    plain_pooling = mock.patch.object(
        networks, "conv_then_average_pool", lambda x, conv: F.avg_pool2d(conv(x), 2)
    )

    def step():
        images, labels = (x.to(device) for x in next(loader))
        n = len(images)
        if method == "rotation":
            images = torch.cat([images, turned_copies(images[:rotated])])
        with plain_pooling:
            features = net((images.float() / 127.5 - 1).contiguous())
        logits = net.binary_head(features[:n])[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, (labels == 0).float())
        if method == "rotation":
            turned = net.rotation_head(torch.cat([features[:rotated], features[n:]]))
            loss = loss + F.cross_entropy(turned, rotation_labels(rotated, device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


@contextmanager
def _others(
    steps: Mapping[Hashable, Callable[[], Callable]], device: torch.device
) -> Iterator[dict[Hashable, list[Elsewhere]]]:
    """Each of the steps as its users have it and, on a CPU, with our allocator's setting."""
    makers = list(steps.values())
    if device.type == "cpu":
        makers += [partial(with_our_allocator, make) for make in steps.values()]
    with elsewhere(*makers) as made:
        yield {name: made[i :: len(steps)] for i, name in enumerate(steps)}


def _against(
    name: str, aim: dict, rounds: int, study, theirs: Sequence[Elsewhere]
) -> Iterator[dict]:
    """The study's step against another: as `_others` gives it."""
    ours, *others = in_turn(rounds, study.device, study.step, *theirs)
    labels = ((name, aim), (f"{name}, allocator lent", "-"))
    for (label, of_it), times in zip(labels, others, strict=False):
        ratios = [b / a for a, b in zip(ours, times, strict=True)]
        yield row(label, device_name(study.device), ratios, of_it)


def _operations(study) -> int:
    """Those of the convolutions and products of a step: of its first, which is no graph yet."""
    with FlopCounterMode(display=False) as counter:
        study.step()
    return counter.get_total_flops()


def _share_of_the_floor(name: str, study, operations: int, rounds: int) -> dict:
    """What the step's convolutions and products would take at this machine's rate, of its time."""
    device = study.device
    # A GPU's rate is that of a batch that fills it, at the precision that the step has.
    n, repeats = (64, 5) if device.type == "cpu" else (1024, 1)
    dtype = torch.bfloat16 if _computes_in_bf16(study) else torch.float32
    conv = nn.Conv2d(128, 128, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
    x = torch.rand(n, 128, 16, 16, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    of_a_convolution = 2 * n * 16 * 16 * 128 * 128 * 9

    @torch.inference_mode()
    def convolve():
        for _ in range(repeats):
            conv(x)

    times, convolutions = in_turn(rounds, device, study.step, convolve)
    floors = [operations / (repeats * of_a_convolution / c) for c in convolutions]
    shares = [floor / taken for floor, taken in zip(floors, times, strict=True)]
    return row(f"{name}: floor, of its time", device_name(device), shares, AIM_FLOOR)


def growth(rounds: int, device: torch.device) -> Iterator[dict]:
    """How an SS-GAN iteration's time grows with the batch and with the width."""
    # A GPU is first filled: there small ones take as long as smaller ones.
    scale = 1 if device.type == "cpu" else 8
    for key, few, many, settings, aim in (
        ("batch", 32 * scale, 64 * scale, lambda n: {"batch_size": n}, "2 (linear)"),
        ("batch", 64 * scale, 128 * scale, lambda n: {"batch_size": n}, "2 (linear)"),
        ("width", 32, 64, _widths, "at most 4 (operations)"),
        ("width", 64, 128, _widths, "at most 4 (operations)"),
    ):
        common = {"model": "ssgan", "batch_size": 64 * scale, **_widths(64)}
        studies = [
            learner("gan_probe", "paper", device, **{**common, **settings(n)}) for n in (few, many)
        ]
        less, more = in_turn(rounds, device, *(study.step for study in studies))
        ratios = [b / a for a, b in zip(less, more, strict=True)]
        yield row(f"ssgan iteration, {key} {many} of {few}", device_name(device), ratios, aim)


def precision(rounds: int, device: torch.device) -> Iterator[dict]:
    """What bf16 gains both loops, at full width and at the `cpu` preset's; no rows where the runner
    takes fp32."""
    for name, of, arm in LOOPS:
        for preset in ("paper", "cpu"):
            study = learner(of, preset, device, **arm)
            if not _computes_in_bf16(study):
                return
            plain = learner(of, preset, device, precision="fp32", **arm)
            bf16, fp32 = in_turn(rounds, device, study.step, plain.step)
            ratios = [b / a for a, b in zip(fp32, bf16, strict=True)]
            label = f"{name}, {preset}: bf16, of fp32's time"
            yield row(label, device_name(device), ratios, "under 1 pays")


def _computes_in_bf16(study) -> bool:
    with study.autocast():
        return torch.is_autocast_enabled(study.device.type)


def compilation(rounds: int, device: torch.device) -> Iterator[dict]:
    """What torch.compile would gain both loops at the `cpu` preset's widths, where the most of
    their time is no convolution, and what it costs at the start: neither loop has it."""
    for name, study, arm in LOOPS:
        plain, compiled = (learner(study, "cpu", device, graphs="off", **arm) for _ in range(2))
        nets = [compiled.discriminator, compiled.generator] if name == "ssgan" else [compiled.net]
        for net in nets:
            net.forward = torch.compile(net.forward)
        plain.step()
        with (
            tempfile.TemporaryDirectory() as empty,  # nothing compiled by an earlier call
            mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=empty),
        ):
            start = seconds(compiled.step, device)
        ours, theirs = in_turn(rounds, device, plain.step, compiled.step)
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        label = f"{name}, cpu preset: torch.compile,"
        yield row(f"{label} of its time", device_name(device), ratios, "under 0.95 would pay")
        costs = [start / a for a in ours]
        yield row(f"{label} compiling, in iterations", device_name(device), costs, "-")


def _widths(width: int) -> dict:
    return {"discriminator_width": width, "generator_width": 2 * width}


def evaluation_share(rounds: int, device: torch.device) -> Iterator[dict]:
    """Evaluating and probing, of a whole `paper` run's time, from the time that a step and each
    kind of evaluation takes on as many images as CIFAR-10 has (digits, repeated)."""
    # On a CPU the GAN's probe is of a tenth of the images, and its time tenfold, for it grows as
    # they do. On a GPU it does not.
    fewer = 10 if device.type == "cpu" else 1
    gan_parts = partial(_gan_parts, fewer=fewer)
    for name, study, parts in (
        ("vanilla", _study_on_many("sequential_tasks", device, method="vanilla"), _tasks_parts),
        ("rotation", _study_on_many("sequential_tasks", device, method="rotation"), _tasks_parts),
        ("ssgan", _study_on_many("gan_probe", device, fewer, model="ssgan"), gan_parts),
    ):
        study.step()
        if device.type == "cuda":
            parts(study, device)  # the first is slow to start
        shares = []
        for _ in range(rounds):
            ((step,),) = in_turn(1, device, study.step)
            evaluations = parts(study, device)
            shares.append(evaluations / (evaluations + study.total_steps * step))
        yield row(
            f"{name}, paper: evaluation, of a run's time", device_name(device), shares, "under 0.15"
        )


def _study_on_many(name: str, device: torch.device, fewer: int = 1, **settings):
    load = data.load

    def many(*_):
        digits = load("digits", "", 32)
        parts = {"train": 50_000 // fewer, "test": 10_000 // fewer}
        repeated = {}
        for split, n in parts.items():
            for what in ("images", "labels"):
                few = getattr(digits, f"{split}_{what}")
                repeated[f"{split}_{what}"] = few[torch.arange(n) % len(few)]
        return dataclasses.replace(digits, **repeated)

    with mock.patch.object(resolve, "resolve", partial(resolve.resolve, load=many)):
        images = preset_settings(name, "paper")["probe_images"]
        return learner(name, "paper", device, probe_images=images, **settings)


def _tasks_parts(study, device: torch.device) -> float:
    """Seconds that all evaluations of a sequential run take."""

    def at(position):
        study.position = position
        return seconds(study.evaluate, device)

    a_task = study.schedule.iterations_per_task
    between, at_its_end = at(a_task // 2), at(a_task)
    due = 0
    for study.position in range(1, a_task):
        due += study.evaluation_due()
    study.position = 1
    return study.total_steps // a_task * (due * between + at_its_end)


def _gan_parts(study, device: torch.device, fewer: int) -> float:
    """Seconds that all evaluations of a GAN's run take, of the mean number of past fakes, with
    `fewer` times as many images to probe with."""
    probes = study.total_steps // study.probe_every
    fakes = torch.zeros(1000, 3, 32, 32, dtype=torch.uint8)
    study.fakes = {-i: fakes for i in range(1, probes // 2)}
    study.probe_c = [0.01] * len(study.discriminator.backbone.blocks)
    study.seconds = dict.fromkeys(study.seconds, 0.0)
    study.position = study.quality_every
    study.evaluate()
    qualities = study.total_steps // study.quality_every
    spent = study.seconds
    return probes * (fewer * spent["probe"] + spent["past_fakes"]) + qualities * spent["quality"]
