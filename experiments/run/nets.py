"""The trained nets of a stored run, ready to be used."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from experiments.run import checkpoints
from experiments.run.stored import Record, Unreadable, read_record
from forgetting.errors import UserError
from forgetting.networks import Classifier, build
from gan.models import MODELS, has_generator
from gan.networks import Discriminator, Generator

NATIVE = {"digits": 8}  # pixels, where dataset.size is unset; other images have 32


def load_discriminator(run: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The net under study of a stored run, as its last checkpoint has it, in evaluation mode.

    run: the run's folder, of either study; what is published (results/reference) has no weights.
    net(images) are the features (N, width) that its heads read, of images as
    `forgetting.networks.scale_images` gives them; net.logits(features, condition) those for "real"
    (condition: the classes, where the GAN is conditional, else None) or for the class of its task
    (condition: the tasks). Heads of methods are not part of it.

    Raises UserError where there is no such run, or none with a checkpoint of this version.
    """
    record, state = _stored(run)
    weights = state["learner"]["net"]
    size, width = _size(record), record.settings.get("discriminator_width")
    normalised = any("parametrizations" in name for name in weights)
    if record.study.name == "gan_probe":
        conditional = any(name.startswith("projection.") for name in weights)
        classes = len(record.info["data"]["classes"]) if conditional else None
        net = build(0, Discriminator, size, width, normalised, classes)
    else:
        outputs = weights["binary_head.bias"].numel()
        net = build(0, Classifier, size, record.settings["width"], outputs, normalised)
    return _ready(net, weights, device)


def load_generator(run: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The generator of a stored run of gan_probe, as its last checkpoint has it, in evaluation
    mode: (N, 128) latents from a standard normal, and classes (N,) int64 where it is conditional,
    to images (N, 3, S, S) in [-1, 1].

    Raises UserError as `load_discriminator`, and where the run has no generator.
    """
    record, state = _stored(run)
    arm = record.settings[record.study.arm]
    if record.study.name != "gan_probe" or not has_generator(arm):
        raise UserError(f"{run}: a run of {arm} has no generator")
    kind, classes = MODELS[arm.split("+")[0]].kind, len(record.info["data"]["classes"])
    width = record.settings["generator_width"]
    net = build(0, Generator, _size(record), width, kind, classes if kind == "class" else None)
    return _ready(net, state["generator"], device)


def _stored(run: str | Path) -> tuple[Record, Mapping]:
    folder = Path(run)
    if not (folder / "run.json").exists():
        raise UserError(f"{folder}: there is no run")
    try:
        record = read_record(folder)
    except Unreadable as error:
        raise UserError(f"{folder}: {error}") from None
    checkpoint = checkpoints.load(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: it has no checkpoint that is whole, and so no weights")
    return record, checkpoint["study"]


def _size(record: Record) -> int:
    settings = record.settings
    return settings["dataset.size"] or NATIVE.get(settings["dataset.name"], 32)


def _ready(net: nn.Module, weights: Mapping, device: str | torch.device) -> nn.Module:
    net.load_state_dict(weights)
    return net.to(device).eval()
