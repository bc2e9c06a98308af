"""What `auto` means on this machine, and the images that settings ask for."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from experiments.run import progress
from experiments.run.settings import default_path
from forgetting import data
from forgetting.devices import bf16_is_native
from forgetting.errors import UserError
from forgetting.mapped import memory_here


def resolve(
    settings: Mapping[str, Any],
    least_classes: int,
    load: Callable = data.load,
    onto_device: bool = True,
) -> tuple[dict[str, Any], data.Dataset]:
    """Replace every `auto` by what it means here, and load the data, onto its device or not."""
    settings = dict(settings)
    if settings["device"] == "auto":
        settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise UserError("device: there is no CUDA device here; use device=cpu or device=auto")
    if settings["precision"] == "tf32" and settings["device"] == "cpu":
        raise UserError("precision: tf32 is of a GPU alone; a CPU has fp32 and bf16")
    if settings["precision"] == "auto":
        settings["precision"] = "bf16" if bf16_is_native(settings["device"]) else "fp32"
    if settings["dataset.name"] == "auto":
        # Under `quick` it was asked for because a folder was named: nothing is put into that.
        name, why = data.choose(settings["dataset.root"], fetch=settings["preset"] != "quick")
        if name == "digits" and settings["preset"] in ("cpu", "paper"):
            raise UserError(
                f"dataset.name: the preset {settings['preset']} needs CIFAR-10, and {why}; put "
                f"cifar-10-batches-py there, or use dataset.name=image_folder dataset.root=DIR, "
                f"or the preset quick"
            )
        named = os.path.abspath(settings["dataset.root"]) != os.path.abspath(default_path("data"))
        if name == "digits" and named:
            raise UserError(
                f"dataset.root: {why}, and there are no folders train and test in it; leave it out "
                f"for the digits of scikit-learn"
            )
        print(f"DATA: dataset.name=auto takes {name}, because {why}")
        settings["dataset.name"] = name
    dataset = load(
        settings["dataset.name"],
        settings["dataset.root"],
        settings["dataset.size"],
        settings["dataset.label"],
        least_classes,
        _memory_for_images(settings, onto_device),
    )
    settings["dataset.root"] = os.path.abspath(settings["dataset.root"])
    settings["dataset.size"] = dataset.train_images.shape[-1]
    settings["dataset.label"] = dataset.label
    return settings, dataset.to(settings["device"] if onto_device else "cpu")


def _memory_for_images(settings: dict, onto_device: bool) -> int:
    """Bytes that a folder's images may take, on the device too."""
    if settings["dataset.memory_mb"]:
        return settings["dataset.memory_mb"] * 10**6 // progress.at_once()
    if settings["device"] == "cuda" and onto_device:
        return min(memory_here(), torch.cuda.mem_get_info()[1]) // 2
    return memory_here() // (2 * progress.at_once())
