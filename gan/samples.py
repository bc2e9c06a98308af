"""A generator's images, and the pictures and tables that are made of them."""

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from forgetting.networks import to_bytes
from forgetting.rotation import rotation_labels, turned_copies
from gan.networks import LATENT, Generator


@torch.inference_mode()
def sample(
    generator: Generator, latents: torch.Tensor, labels: torch.Tensor, autocast, at_once: int
) -> torch.Tensor:
    """The generator's images (N, 3, S, S) uint8, on the CPU, with its running statistics.

    latents (N, 128) float and labels (N,) int64 on the CPU; `at_once` of them at a time. autocast:
    a context manager's maker for the forward passes.
    """
    generator.eval()
    device = generator.linear.weight.device
    parts = []
    for z, y in zip(latents.split(at_once), labels.split(at_once), strict=True):
        with autocast():
            images = generator(z.to(device), y.to(device))
        parts.append(to_bytes(images).cpu())
    return torch.cat(parts).contiguous()


def latents_and_labels(
    n: int, classes: int, draws: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (n, 128) drawn from a standard normal, and labels (n,) int64, each class in turn."""
    return torch.randn(n, LATENT, generator=draws), torch.arange(n) % classes


def predicted_rotations(
    images: torch.Tensor, kinds: Sequence[str], probabilities_of: Callable
) -> list[dict]:
    """A row an image and rotation of what a net takes the rotation to be.

    images (N, 3, S, S) uint8, upright; kinds: what each is, "real" or "generated";
    probabilities_of: images -> Q_D (M, 4).
    """
    probabilities = probabilities_of(torch.cat([images, turned_copies(images)]))
    return [
        {"image": i % len(images), "kind": kinds[i % len(images)], "degrees": 90 * turns}
        | {f"q_{90 * r}": float(q) for r, q in enumerate(probabilities[i])}
        for i, turns in enumerate(rotation_labels(len(images)).tolist())
    ]


def image_grid(images: torch.Tensor) -> bytes:
    """A PNG of images (N, 3, S, S) uint8 in a square grid, a black line between them."""
    from PIL import Image

    side = math.ceil(math.sqrt(len(images)))
    size = images.shape[-1] + 1
    canvas = np.zeros((side * size, side * size, 3), np.uint8)
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        row, column = divmod(i, side)
        canvas[row * size : row * size + size - 1, column * size : column * size + size - 1] = image
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "png")
    return file.getvalue()
