"""The pretext task: tell by how many quarter turns an image was rotated.

Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations",
arXiv 1803.07728; used as the auxiliary loss of Chen et al., arXiv 1811.11212.
"""

import torch
import torch.nn.functional as F
from torch import nn

from forgetting.devices import evaluation_batch
from forgetting.learner import Learner

ROTATIONS = 4  # R = {0, 90, 180, 270} degrees, counter-clockwise


def rotate(images: torch.Tensor, quarter_turns: int) -> torch.Tensor:
    """Images (N, C, H, W) turned counter-clockwise by 90 degrees `quarter_turns` times."""
    return torch.rot90(images, quarter_turns, dims=(2, 3))


def turned_copies(images: torch.Tensor) -> torch.Tensor:
    """The three copies of images (N, C, H, H) that are not upright.

    Returns (3N, C, H, H), same dtype: all N by 90 degrees, then by 180, then by 270.
    """
    return torch.cat([rotate(images, turns) for turns in range(1, ROTATIONS)])


def rows_to_turn(player: str, n: int, turned: int, draws: torch.Generator) -> torch.Tensor:
    """Which of n rows to turn, (turned,) int64: any for a classifier, whose balanced batch is laid
    out positives first; in a GAN the last, for its batch is in no order (the authors' scheme)."""
    if player == "classifier":
        return torch.randperm(n, generator=draws)[:turned]
    return torch.arange(n - turned, n)


def rotation_labels(n: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Labels (4n,) int64 for n upright images followed by their `turned_copies`."""
    return torch.arange(ROTATIONS, device=device).repeat_interleave(n)


def rotation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-E[log Q_D(R = r | x^r)], the rotation term of Chen et al. (L_D), in nats.

    logits (M, 4) float, labels (M,) int64 in 0..3; a scalar.
    """
    return F.cross_entropy(logits.float(), labels)


def rotation_logits(
    learner: Learner, images: torch.Tensor, head: nn.Module | None = None
) -> torch.Tensor:
    """The rotation head's logits (N, 4) float32, on the CPU, for images uint8 as they are; or those
    of another head."""
    net, head = learner.net, head or learner.net.rotation_head
    batches = images.split(evaluation_batch(images, learner.device))
    return torch.cat(learner.read(batches, lambda x: head(net(x)).float().cpu()))


def annealed(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at the last of `steps`, in a straight line."""
    return start + (end - start) * step / max(1, steps - 1)
